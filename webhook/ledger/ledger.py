"""The ledger: the calls of the ``billing`` functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import TupleRow

from webhook.events.event import Event
from webhook.events.facts import Fact, as_json
from webhook.ledger.connections import Database, Watch
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.group_commit import GroupCommit
from webhook.ledger.schema import expected_version, sql_folder

_BRIEFLY = "set local lock_timeout = '1s';"
"""Before several deliveries at once: those that somebody's lock holds up must not hold up the others for long."""

# A check looks at all there is, and the planner, which cannot know what its steps make of that, must not guess little.
_SNAPSHOT = """
begin isolation level repeatable read, read only;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local enable_nestloop = off;
set local jit = off;
set local role service_role;
set local search_path = pg_catalog, pg_temp;
"""

_PARKED = """
select event_id, event_type, reason, payment_id, parked_at, resolution, resolved_at, who, why
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery: ``recorded``, ``duplicate``, ``ignored``, ``parked``, or yet ``unsettled``."""

    name: str
    reason: str | None = None
    missing_setting: str | None = None
    """The setting without which it is only supposed that it is to be ignored."""


@dataclass(frozen=True)
class ParkedEvent:
    """An event that waits for an operator, or for a retry; or that waited, once it has a ``resolution``."""

    id: str
    type: str
    reason: str
    payment_id: str | None
    parked_at: datetime
    resolution: str | None
    """``settled`` or ``discarded``."""
    resolved_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None
    payload: str | None = None
    """Its body; ``None`` in a list, and once it is resolved."""


@dataclass(frozen=True)
class Reconciled:
    """What became of an object that reconciliation found, and the credits it gave, or took (below 0)."""

    object_id: str
    outcome: Outcome
    credits: int


@dataclass(frozen=True)
class Money:
    """What the ledger knows of a payment's money, in minor units of its currency."""

    payment_id: str
    paid: int | None
    """``None`` where another id of the sale says it."""
    currency: str | None
    refunded: int
    disputed: int


class Ledger:
    """Calls of the ``billing`` functions; safe to share between threads, which may hold a connection each."""

    def __init__(self, database_url: str, watch: Watch = lambda *_: nullcontext()) -> None:
        """Nothing is connected until the first call."""
        self._database = Database(database_url, watch)
        self._call = self._database.call
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

    def reconcile(self, deliveries: Sequence[tuple[str, Sequence[Fact], bool]], *, dry_run: bool) -> list[Reconciled]:
        """Record what objects say, (id, facts, whether only a known sale counts) each, in one committed transaction.

        Returns what became of each that said something new; ``left_alone`` where it did not count. A dry run tells the
        same of these deliveries and changes nothing, so that the next call knows nothing of them.
        """
        sent = [
            {"event_id": object_id, "facts": [as_json(fact) for fact in facts], "only_known": only_known}
            for object_id, facts, only_known in deliveries
        ]
        [(results,)] = self._call("select billing.reconcile(%s, %s)", [json.dumps(sent), dry_run])
        return [
            Reconciled(each["event_id"], Outcome(each["outcome"], each.get("reason")), int(each["credits"]))
            for each in results
        ]

    def parked_already(self, object_id: str, payment_id: str | None) -> str | None:
        """Return why an object that cannot be settled is not to be parked, ``None`` where it is.

        ``waiting`` or ``discarded``, under an event about it or its sale; ``settled`` where others told of its sale.
        """
        [(why,)] = self._call("select billing.parked_already(%s, %s)", [object_id, payment_id])
        return why if isinstance(why, str) else None

    def open_objects(self, since: datetime) -> list[str]:
        """Return the ids of payments noted since then that are not paid yet, and of open disputes."""
        return [str(object_id) for (object_id,) in self._call("select billing.open_objects(%s)", [since])]

    def reversals_without_sale(self, since: datetime) -> list[str]:
        """Return the ids of payments with a reversal recorded since then and without a known sale."""
        return [str(payment_id) for (payment_id,) in self._call("select billing.strange_payments(%s)", [since])]

    def unlinked(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return which of these, an invoice and a payment of it each, the ledger does not take for one sale."""
        invoice_ids, payment_ids = ([pair[side] for pair in pairs] for side in (0, 1))
        rows = self._call(
            "select invoice_id, payment_id from unnest(%s::text[], %s::text[]) as pair (invoice_id, payment_id)"
            " where payment_id <> all (billing.linked_payments(array[invoice_id]))",
            [invoice_ids, payment_ids],
        )
        return [(str(invoice_id), str(payment_id)) for invoice_id, payment_id in rows]

    def money_of(self, payment_ids: Sequence[str]) -> list[Money]:
        """Return what the ledger knows of the money of those payments and invoices whose sale is known."""
        return [Money(*row) for row in self._call(_check("money_of_payments"), [list(payment_ids)])]

    def granted(self, since: datetime, until: datetime) -> list[str]:
        """Return the ids of the sales that events granted in that time, or reconciliation."""
        rows = self._call(
            "select stripe_id from public.transactions"
            " where type = 'PURCHASE' and event_id is not null and created_at >= %s and created_at < %s",
            [since, until],
        )
        return [str(payment_id) for (payment_id,) in rows]

    def covered_until(self) -> datetime | None:
        """Return until when finished reconciliations have looked without a gap, ``None`` before the first."""
        [(at,)] = self._call("select billing.covered_until()", [])
        return at if isinstance(at, datetime) else None

    def begin_reconciliation(self, since: datetime, until: datetime) -> int:
        """Note that a run begins, and return its id."""
        [(run_id,)] = self._call("select billing.begin_reconciliation(%s, %s)", [since, until])
        return int(run_id)

    def finish_reconciliation(self, run_id: int) -> None:
        """Note that a run has seen all of its window."""
        self._call("select billing.finish_reconciliation(%s)", [run_id])

    def resolve(self, event_id: str) -> None:
        """End the waiting of a parked event, which turned out to have nothing to do with credits."""
        self._call("select billing.resolve(%s)", [event_id])

    def discard(self, event_ids: Sequence[str], by: str, why: str) -> list[str]:
        """End the waiting of parked events that are not to be settled; return the ids of those that are discarded."""
        rows = self._call("select billing.discard(%s, %s, %s)", [list(event_ids), by, why])
        return [str(event_id) for (event_id,) in rows]

    def parked_events(self) -> list[ParkedEvent]:
        """Return the events that wait, oldest first, without their payloads."""
        where = " from billing.parked_events where resolved_at is null order by parked_at, event_id"
        return [ParkedEvent(*row) for row in self._call(_PARKED + where, [])]

    def parked_event(self, event_id: str) -> ParkedEvent | None:
        """Return an event that waits or waited, with its payload; ``None`` where it never did."""
        where = ", payload::text from billing.parked_events where event_id = %s"
        rows = self._call(_PARKED + where, [event_id])
        return ParkedEvent(*rows[0]) if rows else None

    def schema_version(self) -> str:
        """Return the version of the newest migration in the database."""
        [(version,)] = self._call("select billing.schema_version()", [])
        return str(version)

    def role(self) -> str:
        """Return the role that statements run as."""
        [(role,)] = self._call("select current_user", [])
        return str(role)

    def current_schema_version(self) -> str:
        """Return :meth:`schema_version`, or raise :class:`LedgerUnavailableError` where it is older than this code's."""
        version, expected = self.schema_version(), expected_version()
        if version < expected:
            raise LedgerUnavailableError(f"schema {version}, expected {expected}: run webhook migrate")
        return version

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

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterator[TupleRow]]]:
        """Yield what runs a check of ``sql/checks``: all see the ledger as it is now, however long they take.

        The rows come one by one. Another check may run only after the last of them.
        """
        with self._database.session() as connection:
            connection.execute(_SNAPSHOT)
            yield lambda name: connection.cursor().stream(_check(name))


def _check(name: str) -> str:
    return (sql_folder() / "checks" / f"{name}.sql").read_text(encoding="utf-8")
