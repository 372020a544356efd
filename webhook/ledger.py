"""The ledger: the one place that talks to Postgres, always as ``service_role``.

One call is one simple query of several statements: one round trip and one implicit transaction. It rests on no session
state and leaves none, so it works on a direct connection and through any pooler alike.
"""

from __future__ import annotations

import json
import select
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore
from typing import Any

import psycopg
from psycopg import ClientCursor, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DeadlockDetected, OperationalError, SerializationFailure
from psycopg.rows import TupleRow

from webhook.events import Event
from webhook.facts import Fact, as_json
from webhook.group_commit import GroupCommit, Rejected
from webhook.schema import sql_folder

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

_BRIEFLY = "set local lock_timeout = '1s';"
"""Before several deliveries at once: those that somebody's lock holds up must not hold up the others for long."""

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


class LedgerUnavailable(Exception):  # noqa: N818
    """The database cannot record anything now; the message says why, without data of any delivery."""


class LedgerRefused(LedgerUnavailable, Rejected):
    """The database was reached and did not record this; of several deliveries one may be the reason."""


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery: ``recorded``, ``duplicate``, ``ignored``, ``parked``, or yet ``unsettled``."""

    name: str
    reason: str | None = None


@dataclass(frozen=True)
class ParkedEvent:
    """An event that waits for an operator, or for a retry."""

    id: str
    type: str
    reason: str
    parked_at: datetime
    payload: str


class _PatientConnection(Connection[TupleRow]):
    """A connection that gives up on a server which took a query and never answers: no timeout of the server's can."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = _LONGEST_SILENCE) -> Any:
        return super().wait(gen, interval, timeout)


class Ledger:
    """Calls of the ``billing`` functions; safe to share between threads, which may hold a connection each."""

    def __init__(self, database_url: str) -> None:
        """Nothing is connected until the first call."""
        self._parameters: dict[str, Any] = {**_CONNECTION_DEFAULTS, **conninfo_to_dict(database_url)}
        self._idle: deque[Connection[TupleRow]] = deque()
        self._places = BoundedSemaphore(CONNECTIONS)
        self._record: GroupCommit[str, Outcome] = GroupCommit(self._record_batch)

    def record(self, event_id: str, facts: Sequence[Fact]) -> Outcome:
        """Merge an event's facts and settle their sales; return once that is committed, perhaps with others' facts."""
        return self._record(json.dumps({"event_id": event_id, "facts": [as_json(fact) for fact in facts]}))

    def _record_batch(self, deliveries: Sequence[str]) -> list[Outcome]:
        haste = _BRIEFLY if len(deliveries) > 1 else ""
        [(results,)] = self._call(haste + "select billing.record(%s)", [f"[{','.join(deliveries)}]"])
        return [Outcome(result["outcome"], result.get("reason")) for result in results]

    def park(self, event: Event, reason: str, payment_id: str | None, payload: str) -> Outcome:
        """Store an event that cannot be settled; one that was resolved before is a duplicate."""
        [(waits,)] = self._call(
            "select billing.park(%s, %s, %s, %s, %s)", [event.id, event.type, reason, payment_id, payload]
        )
        return Outcome("parked", reason) if waits else Outcome("duplicate")

    def resolve(self, event_id: str) -> None:
        """End the waiting of a parked event, which turned out to have nothing to do with credits."""
        self._call("select billing.resolve(%s)", [event_id])

    def parked_events(self, event_ids: Sequence[str] = ()) -> list[ParkedEvent]:
        """Return the events that wait, oldest first: all, or those of the given ids."""
        rows = self._call(
            "select event_id, event_type, reason, parked_at, payload::text from billing.parked_events"
            " where resolved_at is null and (%s or event_id = any (%s::text[])) order by parked_at, event_id",
            [not event_ids, list(event_ids)],
        )
        return [ParkedEvent(*row) for row in rows]

    def schema_version(self) -> str:
        """Return the version of the newest migration in the database."""
        [(version,)] = self._call("select billing.schema_version()", [])
        return str(version)

    def role(self) -> str:
        """Return the role that statements run as."""
        [(role,)] = self._call("select current_user", [])
        return str(role)

    def tables_without_rls(self) -> list[str]:
        """Return the tables of the ledger and of ``billing`` that lack row-level security."""
        return [str(name) for (name,) in self._call(_check("tables_without_rls"), [])]

    def wrong_rights(self) -> list[str]:
        """Return which right a role lacks or has too much, such as ``anon has select on public.users``."""
        return [str(name) for (name,) in self._call(_check("wrong_rights"), [])]

    def parked_count(self) -> int:
        """Return how many events wait."""
        [(count,)] = self._call("select count(*) from billing.parked_events where resolved_at is null", [])
        return int(count)

    def _call(self, statement: str, parameters: Sequence[Any]) -> list[TupleRow]:
        """Return the rows of ``statement``, tried once more where its connection was lost or it lost a race.

        That is safe after a commit whose answer got lost, too: recording again changes nothing.
        """
        with _translated_errors(), self._place():
            connection = self._idle_connection() or self._connect()
            try:
                return self._run(connection, statement, parameters)
            except psycopg.Error as error:
                if not (connection.broken or isinstance(error, (DeadlockDetected, SerializationFailure))):
                    raise
            self.close()
            return self._run(self._connect(), statement, parameters)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=_LONGEST_WAIT):
            raise LedgerUnavailable(f"all {CONNECTIONS} connections are busy")
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
        return _PatientConnection.connect(
            **self._parameters, autocommit=True, cursor_factory=ClientCursor, prepare_threshold=None
        )

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


def _check(name: str) -> str:
    return (sql_folder() / "checks" / f"{name}.sql").read_text(encoding="utf-8")


def _is_silent(connection: Connection[TupleRow]) -> bool:
    """Whether nothing has come in since the last answer: a server that went away has said so, or hung up."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn any error of the database into ours; its message may hold a row's values, so its code stands in."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None and isinstance(error, OperationalError):
            raise LedgerUnavailable(f"no connection: {' '.join(str(error).split())}") from error
        constraint = error.diag.constraint_name
        detail = f" ({constraint})" if constraint else ""
        raise LedgerRefused(f"SQLSTATE {error.sqlstate} {type(error).__name__}{detail}") from error
