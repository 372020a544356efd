"""Files for a Postgres that root starts.

Postgres refuses to run as root, so it runs as ``nobody``. That user cannot enter a directory such as /root (mode 0700).
The permissions of directories that this module did not create stay as they are. Instead, root copies the programs to
:data:`HOME`, and keeps the database there.

:data:`HOME` is not below /tmp or /var/tmp. There, another user could create it first, and systemd deletes single files
that were not used for some weeks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import click

from webhook.dev.errors import PostgresError
from webhook.dev.supervise import group_of

HOME = Path("/var/lib/stripe-credits-webhook")

_REMEDY = "start it as another user than root, or set DATABASE_URL"


def unprivileged_user() -> str:
    """Return the user that Postgres runs as: ``nobody`` for root, "" for the current user."""
    return "nobody" if os.geteuid() == 0 else ""


@cache
def readable_root(root: Path, trees: Sequence[str], name: str) -> Path:
    """Return ``root`` if the user of Postgres can read its ``trees``, else a copy named ``name`` below :data:`HOME`.

    ``trees`` are paths below ``root``. A copy that exists is used again, so ``name`` contains the version. Raises
    :class:`PostgresError`.
    """
    user = unprivileged_user()
    if not user or _can_read(user, root, trees):
        return root
    copy = _home() / name
    if not copy.exists():
        click.echo(f"Copying Postgres to {copy}, where the user {user} can read it …")
        _copy(root, trees, copy)
    if not _can_read(user, copy, trees):
        raise PostgresError(f"Postgres would run as {user}, who can read neither {root} nor {copy}: {_REMEDY}")
    return copy


def reachable_directory(directory: Path) -> Path:
    """Return the path by which the user of Postgres reaches ``directory``; its parent exists.

    If the user cannot enter the parent, ``directory`` becomes a symbolic link to a directory below :data:`HOME`. A link
    that moves with its checkout keeps its data. No data is deleted, not even after its link was. Raises
    :class:`PostgresError`.
    """
    user = unprivileged_user()
    if not user or _can_enter(user, directory.parent.resolve()):
        return directory.resolve()
    if directory.is_dir() and not directory.is_symlink():
        raise PostgresError(f"Postgres would run as {user}, who cannot enter {directory}: delete it, or {_REMEDY}")
    if not (directory.is_symlink() and _belongs_to(directory, directory.readlink())):
        _link(directory, _home() / f"data-{secrets.token_hex(8)}")
    target = directory.readlink()
    if not target.exists():
        click.echo(f"The user {user} cannot enter {directory.parent}. The database is in {target}: delete it there.")
    return target


def _link(directory: Path, target: Path) -> None:
    directory.unlink(missing_ok=True)
    directory.symlink_to(target)
    _origin(target).write_text(str(directory.absolute()), encoding="utf-8")


def _origin(target: Path) -> Path:
    """Return the file that stores the path of the link to ``target``."""
    return target.with_name(f"{target.name}.origin")


def _belongs_to(link: Path, target: Path) -> bool:
    """Return whether the data is this link's own. It is not if the link was copied with its checkout."""
    _home()
    try:
        origin = Path(_origin(target).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    if origin != link.absolute():
        if origin.is_symlink() and origin.readlink() == target:
            return False
        _link(link, target)
    return target.parent == HOME


def _can_enter(user: str, directory: Path) -> bool:
    return _succeeds(user, 'test -x "$1"', directory)


def _can_read(user: str, root: Path, trees: Sequence[str]) -> bool:
    script = 'unreadable=$(find "$@" ! -type l ! -readable) && test -z "$unreadable"'
    return _succeeds(user, script, *(root / tree for tree in trees))


def _succeeds(user: str, script: str, *arguments: Path) -> bool:
    """Run a shell script as ``user``: only the kernel knows all that grants or denies access."""
    done = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", script, "sh", *map(str, arguments)],
        cwd="/",
        capture_output=True,
        check=False,
        user=user,
        group=group_of(user),
        extra_groups=[],
    )
    return done.returncode == 0


def _home() -> Path:
    """Return :data:`HOME`, created if missing; raise :class:`PostgresError` if others than root can change it."""
    try:
        with suppress(FileExistsError):
            HOME.mkdir(mode=0o755, parents=True)
            HOME.chmod(0o755)  # the umask may have removed permissions
        status = HOME.lstat()
    except OSError as error:
        raise PostgresError(f"cannot create {HOME}: {error.strerror}: {_REMEDY}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PostgresError(f"{HOME} does not belong to root alone: delete it, or {_REMEDY}")
    return HOME


def _copy(root: Path, trees: Sequence[str], copy: Path) -> None:
    """Copy the trees atomically, readable for everybody."""
    new = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    try:
        for tree in trees:
            shutil.copytree(root / tree, new / tree, symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        new.rename(copy)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if not copy.exists():  # else another process was faster
            raise PostgresError(f"cannot copy Postgres to {copy}: {error}: {_REMEDY}") from None
