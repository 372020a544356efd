"""Connections to Postgres: the one place that talks to it, always as ``service_role``.

One call is one simple query of several statements: one round trip and one implicit transaction. It rests on no session
state and leaves none, so it works on a direct connection and through any pooler alike.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from threading import BoundedSemaphore
from typing import Any

import psycopg
from gevent.monkey import get_original
from psycopg import ClientCursor, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DeadlockDetected, OperationalError, SerializationFailure
from psycopg.rows import TupleRow

from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError

# Session state that another client of a transaction pooler left behind must not weaken a call: each says all it needs.
# The isolation has a statement of its own: a select would come too late to change it.
PREAMBLE = """
set transaction isolation level read committed, read write;
select
    pg_catalog.set_config('statement_timeout', '8s', true),
    pg_catalog.set_config('lock_timeout', '4s', true),
    pg_catalog.set_config('role', 'service_role', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config('synchronous_commit', 'on', true);
"""
"""What every call begins with."""

CONNECTIONS = 8
"""So many a process uses at most, however many deliveries it works on."""

_LONGEST_WAIT = 5
"""Seconds that a call waits for one of them."""

_LONGEST_SILENCE = 10
"""Seconds that a query may take on its way and back: more than its statement_timeout."""

_CONNECTION_DEFAULTS = {
    "application_name": "webhook",
    "client_encoding": "utf8",
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
}

_poll = get_original("select", "poll")
"""The system's own: in gevent's, others would get a turn for each look."""

_SESSION: dict[str, Any] = {"autocommit": True, "cursor_factory": ClientCursor, "prepare_threshold": None}


Watch = Callable[[str, Sized], AbstractContextManager[None]]
"""Sees a call from its beginning to its end, given its statement and the idle connections."""


class _PatientConnection(Connection[TupleRow]):
    """A connection that gives up on a server which took a query and never answers: no timeout of the server's can."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = _LONGEST_SILENCE) -> Any:
        return super().wait(gen, interval, timeout)


class Database:
    """Calls of the database; safe to share between threads, which may hold a connection each."""

    def __init__(self, database_url: str, watch: Watch) -> None:
        """Nothing is connected until the first call."""
        self._watch = watch
        self._parameters: dict[str, Any] = {**_CONNECTION_DEFAULTS, **conninfo_to_dict(database_url)}
        self._idle: deque[Connection[TupleRow]] = deque()
        self._places = BoundedSemaphore(CONNECTIONS)

    def call(self, statement: str, parameters: Sequence[Any]) -> list[TupleRow]:
        """Return the rows of ``statement``, tried once more where its connection was lost or it lost a race.

        That is safe after a commit whose answer got lost, too: recording again changes nothing.
        """
        with self._watch(statement, self._idle), _translated_errors(), self._place():
            connection = self._idle_connection() or self._connect()
            try:
                return self._run(connection, statement, parameters)
            except psycopg.Error as error:
                if not (connection.broken or isinstance(error, (DeadlockDetected, SerializationFailure))):
                    raise
            self.close()
            return self._run(self._connect(), statement, parameters)

    @contextmanager
    def session(self) -> Iterator[Connection[TupleRow]]:
        """Yield a connection of its own, for what takes several calls; errors are translated as a call's are."""
        with _translated_errors(), Connection.connect(**self._parameters, **_SESSION) as connection:
            yield connection

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=_LONGEST_WAIT):
            raise LedgerUnavailableError(f"all {CONNECTIONS} connections are busy")
        try:
            yield
        finally:
            self._places.release()

    def _run(self, connection: Connection[TupleRow], statement: str, parameters: Sequence[Any]) -> list[TupleRow]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(PREAMBLE + statement, parameters)
                cursor.set_result(-1)
                rows = cursor.fetchall()
        except psycopg.Error:
            # Not to be used again: it may lead to a server that was demoted to read-only.
            connection.close()
            raise
        self._idle.append(connection)
        return rows

    def _connect(self) -> Connection[TupleRow]:
        return _PatientConnection.connect(**self._parameters, **_SESSION)

    def _idle_connection(self) -> Connection[TupleRow] | None:
        """Return an idle connection that the server has not closed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if _is_silent(connection):
                return connection
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while connection := self._idle_connection():
            connection.close()


def _is_silent(connection: Connection[TupleRow]) -> bool:
    """Whether nothing has come in since the last answer: a server that went away has said so, or hung up."""
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn any error of the database into ours; its message may hold a row's values, so its code stands in."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None and isinstance(error, OperationalError):
            raise LedgerUnavailableError(f"no connection: {' '.join(str(error).split())}") from error
        constraint = error.diag.constraint_name
        detail = f" ({constraint})" if constraint else ""
        raise LedgerRefusedError(f"SQLSTATE {error.sqlstate} {type(error).__name__}{detail}") from error
