"""Programs that the bench needs in addition to Python packages. Missing ones are installed if possible."""

from __future__ import annotations

import os
import shutil
import subprocess

from bench.systems import COMPETITORS

_DEBIAN_PACKAGES = {"wrk": "wrk", "node": "nodejs", "npm": "npm"}
_OLDEST_NODE = 20


class MissingProgramError(Exception):
    """A program is missing and cannot be installed here; the message says how to install it."""


def install() -> None:
    """Install wrk, Node.js and the packages of the Express competitor, or raise :class:`MissingProgramError`."""
    missing = [package for program, package in _DEBIAN_PACKAGES.items() if not shutil.which(program)]
    if missing and not _install_from_debian(missing):
        raise MissingProgramError(
            f"install {', '.join(missing)} (on Debian and Ubuntu: apt install {' '.join(missing)})"
        )
    # Express 5 needs Node.js 18 and stripe-node needs 20. Debian 12 has 18.
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    if int(version.removeprefix("v").partition(".")[0]) < _OLDEST_NODE:
        raise MissingProgramError(f"node is {version}: install Node.js {_OLDEST_NODE} or newer")
    folder = COMPETITORS / "express"
    if (
        not (folder / "node_modules").is_dir()
        and subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],  # noqa: S607
            cwd=folder,
            check=False,
        ).returncode
    ):
        raise MissingProgramError("npm could not install the packages of the Express competitor: see above")


def _install_from_debian(packages: list[str]) -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update"], check=False)  # noqa: S607
    return subprocess.run(command, env=environment, check=False).returncode == 0  # noqa: S603
