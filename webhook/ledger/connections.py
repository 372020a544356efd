"""Connections to Postgres. Every statement of the ledger goes through here, as ``service_role`` or as an operator.

One call is one simple query of several statements: one round trip and one implicit transaction. A call needs no session
state and leaves none, so it works on a direct connection and through any pooler.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from gevent import Timeout
from gevent.monkey import get_original, is_module_patched
from gevent.socket import wait_read, wait_readwrite, wait_write
from psycopg import ClientCursor, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DeadlockDetected, OperationalError, SerializationFailure
from psycopg.rows import DictRow, dict_row
from psycopg.waiting import Wait

from webhook.ledger.connect_errors import message_of, remedy_of
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError, RuleError
from webhook.ledger.queries import query

WORKER, OPERATOR, NO_ROLE = "service_role", "billing_operator", "none"
"""The roles of statements. With ``none`` they run as the login."""

CONNECTIONS = 8
"""Connections that a process uses at most, however many deliveries it works on."""

_POOL_TIMEOUT = 5
"""Seconds that a call waits for a free connection."""

_QUERY_TIMEOUT = 10
"""Seconds that a query may take, network included: more than its statement_timeout."""

_CONNECTION_DEFAULTS = {
    "application_name": "webhook",
    "client_encoding": "utf8",
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
}

_OWN_ERRORS = "CR"
"""What the SQLSTATEs of the schema's own errors begin with."""

_poll = get_original("select", "poll")
"""The system's own poll. gevent's would switch to another greenlet at each look."""

_WAITS = {Wait.R: wait_read, Wait.W: wait_write, Wait.RW: wait_readwrite}

_SESSION: dict[str, Any] = {
    "autocommit": True,
    "cursor_factory": ClientCursor,
    "prepare_threshold": None,
    "row_factory": dict_row,
}

Row = DictRow
"""A row by the names of its columns."""

CallHook = Callable[[str, Sized], AbstractContextManager[None]]
"""Entered around each call, with its statement and the idle connections."""


class _ConnectionWithTimeout(Connection[Row]):
    """A connection that closes if the server takes a query and never answers. No timeout of the server covers that."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = _QUERY_TIMEOUT) -> Any:
        if is_module_patched("select"):
            return _wait_in_greenlet(gen, self.pgconn.socket, timeout)
        return super().wait(gen, interval, timeout)


def _wait_in_greenlet(steps: Generator[Wait, int, Any], descriptor: int, timeout: float | None) -> Any:
    """Return the result of psycopg's generator. Its own function would call gevent's slow ``poll`` ten times a second.

    Raises :class:`OperationalError` after ``timeout`` seconds.
    """
    try:
        with Timeout(timeout, OperationalError("the server did not answer in time")):
            event = next(steps)
            while True:
                _WAITS[event](descriptor)
                # A step reads and writes without blocking, so a wait for both may report both.
                event = steps.send(event)
    except StopIteration as end:
        return end.value


class Database:
    """A connection pool that connects at the first call. Threads may share it."""

    def __init__(
        self,
        database_url: str,
        call_hook: CallHook = lambda *_: nullcontext(),
        *,
        role: str = WORKER,
        begin: str = "begin_call",
        connections: int = CONNECTIONS,
    ) -> None:
        """``role`` is the role of every statement; the login has to be a member of it. ``begin`` names its first query.

        A call uses one of at most ``connections`` connections.
        """
        self._begin = query(begin).format(role=role)
        self._connections = connections
        self._call_hook = call_hook
        self._parameters: dict[str, Any] = {**_CONNECTION_DEFAULTS, **conninfo_to_dict(database_url)}
        self._idle: deque[Connection[Row]] = deque()
        # A semaphore of threading would make gevent look at all its sockets at each release.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(connections):
            self._slots.put(None)

    def call(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        """Return the rows of ``statement``. It is retried once if the connection is lost, or after a deadlock.

        The retry is safe even if the first call was committed and its answer got lost: recording again changes nothing.
        Raises :class:`LedgerUnavailableError`.
        """
        with self._call_hook(statement, self._idle), _translated_errors(), self._slot():
            connection = self._idle_connection() or self._connect()
            try:
                return self._run(connection, statement, parameters)
            except psycopg.Error as error:
                if not (connection.broken or isinstance(error, (DeadlockDetected, SerializationFailure))):
                    raise
            self.close()
            return self._run(self._connect(), statement, parameters)

    @contextmanager
    def session(self) -> Iterator[Connection[Row]]:
        """Yield a connection outside the pool, for several statements. Errors are translated as those of a call."""
        with _translated_errors(), Connection[Row].connect(**self._parameters, **_SESSION) as connection:
            yield connection

    @contextmanager
    def _slot(self) -> Iterator[None]:
        try:
            self._slots.get(timeout=_POOL_TIMEOUT)
        except Empty:
            raise LedgerUnavailableError(f"all {self._connections} connections are busy") from None
        try:
            yield
        finally:
            self._slots.put(None)

    def _run(self, connection: Connection[Row], statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(self._begin + statement, parameters)
                cursor.set_result(-1)
                rows = cursor.fetchall()
        except BaseException:
            # The connection is not reused: its server may have been demoted to read-only, or may still answer.
            connection.close()
            raise
        self._idle.append(connection)
        return rows

    def _connect(self) -> Connection[Row]:
        return _ConnectionWithTimeout.connect(**self._parameters, **_SESSION)

    def _idle_connection(self) -> Connection[Row] | None:
        """Return an idle connection that the server has not closed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if _is_open(connection):
                return connection
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while connection := self._idle_connection():
            connection.close()


def _is_open(connection: Connection[Row]) -> bool:
    """Return whether the server has sent nothing since its last answer: before it closes, it sends a message."""
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise errors of psycopg as ours. Their messages may contain a row's values, so only the SQLSTATE is kept.

    Errors that a function of ``billing`` raises keep their detail and hint, which are written for people.
    """
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None and isinstance(error, OperationalError):
            raise LedgerUnavailableError(f"no connection: {message_of(error)}") from error
        if error.sqlstate and error.sqlstate.startswith(_OWN_ERRORS):
            raise RuleError(error.sqlstate, _sentences(error)) from error
        constraint = error.diag.constraint_name
        detail = f" ({constraint})" if constraint else remedy_of(error)
        raise LedgerRefusedError(f"SQLSTATE {error.sqlstate} {type(error).__name__}{detail}") from error


def _sentences(error: psycopg.Error) -> str:
    return " ".join(filter(None, (error.diag.message_detail, error.diag.message_hint)))
