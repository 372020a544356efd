"""``.dev/`` in the current folder: what ``webhook dev`` keeps between starts, and where it runs now."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click

FOLDER = Path(".dev")
_SERVER = FOLDER / "server.json"
_SECONDS_TO_WAIT = 40


class DevError(Exception):
    """``webhook dev`` cannot go on, or is not running; the message says why."""


@dataclass(frozen=True)
class DevServer:
    """A ``webhook dev`` that is ready for deliveries."""

    url: str
    database_url: str
    webhook_secret: str
    pid: int


def running_server() -> DevServer:
    """Return the ``webhook dev`` that runs in this folder, or raise :class:`DevError`."""
    server = _find_running()
    if server is None:
        raise DevError("no `webhook dev` runs in this folder: type `make dev` in another terminal first")
    return server


def kept_secret(name: str, prefix: str = "") -> str:
    """Return the secret that :data:`FOLDER` keeps under ``name``, made at the first call."""
    path = FOLDER / name
    if not path.exists():
        _write_private(path, prefix + secrets.token_hex(24))
    return path.read_text(encoding="utf-8")


@contextmanager
def announced(server: DevServer) -> Iterator[None]:
    """Let :func:`running_server` find ``server``."""
    _write_private(_SERVER, json.dumps(asdict(server)))
    try:
        yield
    finally:
        _SERVER.unlink(missing_ok=True)


@contextmanager
def locked() -> Iterator[int]:
    """Keep this folder for one ``webhook dev``; yield the descriptor of the lock, for what it starts.

    Waits for the processes of one that was killed: they notice, and hold the lock until they have ended. Raises
    :class:`DevError` where one runs.
    """
    try:
        FOLDER.mkdir(exist_ok=True)
        lock = os.open(FOLDER / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevError(f"cannot write to {FOLDER.absolute()}: {error.strerror}") from None
    try:
        _wait_for(lock)
        yield lock
    finally:
        os.close(lock)


def _find_running() -> DevServer | None:
    with suppress(OSError, ValueError, TypeError):
        server = DevServer(**json.loads(_SERVER.read_text(encoding="utf-8")))
        os.kill(server.pid, 0)
        return server
    return None


def _wait_for(lock: int) -> None:
    for attempt in range(_SECONDS_TO_WAIT * 10):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if server := _find_running():
            raise DevError(f"`webhook dev` runs already in this folder, at {server.url}")
        if attempt == 0:
            click.echo("Waiting for the last `webhook dev` to stop …")
        time.sleep(0.1)
    raise DevError(f"another `webhook dev` starts or stops in this folder ({FOLDER / 'lock'} is locked)")


def _write_private(path: Path, text: str) -> None:
    """Write and rename, so that nobody else can read it, and nobody reads half of it."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)
