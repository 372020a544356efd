"""The directory ``.dev`` below the current one: what ``webhook dev`` keeps between starts, and where it runs."""

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

from webhook.dev.errors import DevError

DIRECTORY = Path(".dev")
_SERVER = DIRECTORY / "server.json"
_LOCK_TIMEOUT = 40
"""Seconds."""


@dataclass(frozen=True)
class DevServer:
    """A ``webhook dev`` that is ready for deliveries."""

    url: str
    database_url: str
    webhook_secret: str
    pid: int


def running_server() -> DevServer:
    """Return the ``webhook dev`` that runs in the current directory, or raise :class:`DevError`."""
    server = _find_running()
    if server is None:
        raise DevError("no `webhook dev` runs in this directory: type `make dev` in another terminal first")
    return server


def stored_secret(name: str, prefix: str = "") -> str:
    """Return the secret in the file ``name`` of :data:`DIRECTORY`; the first call generates it."""
    path = DIRECTORY / name
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
    """Lock :data:`DIRECTORY` for one ``webhook dev``; yield the lock's descriptor, which child processes inherit.

    The children of a killed ``webhook dev`` hold the lock until they have ended, so this waits for them. Raises
    :class:`DevError` if a ``webhook dev`` runs.
    """
    try:
        DIRECTORY.mkdir(exist_ok=True)
        lock = os.open(DIRECTORY / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevError(f"cannot write to {DIRECTORY.absolute()}: {error.strerror}") from None
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
    for attempt in range(_LOCK_TIMEOUT * 10):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if server := _find_running():
            raise DevError(f"`webhook dev` already runs in this directory, at {server.url}")
        if attempt == 0:
            click.echo("Waiting for the last `webhook dev` to stop …")
        time.sleep(0.1)
    raise DevError(f"another `webhook dev` starts or stops in this directory ({DIRECTORY / 'lock'} is locked)")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read. The write is atomic."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.rename(path)
