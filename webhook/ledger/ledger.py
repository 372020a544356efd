"""The ledger: the calls of the ``billing`` functions, and the rows that they return."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from webhook.events.event import Event
from webhook.events.facts import Fact, as_json
from webhook.events.named_user import named_user
from webhook.events.payer import payer_email, payer_email_in
from webhook.events.sales import user_id_of
from webhook.ledger.connections import CONNECTIONS, CallHook, Database, Row
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.group_commit import GroupCommit
from webhook.ledger.queries import check, query
from webhook.ledger.schema import expected_version, triggers

_STRIPE_ID = re.compile(r"[a-z]+_[A-Za-z0-9_]+")
_ID_IN_PAYLOAD = r'"(id|payment_intent|invoice|charge|customer|subscription)":\s*"{id}"'
"""A regular expression of Postgres: an event is about an object if it has the object's id in one of these fields."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a delivery: ``recorded``, ``duplicate``, ``ignored``, ``parked``, or first ``unsettled``."""

    name: str
    reason: str | None = None
    missing_setting: str | None = None
    """The setting that could change the outcome ``ignored`` or ``parked``, if it were set."""
    missing_objects: tuple[str, ...] = ()
    """The ids of objects that Stripe does not have any more."""


@dataclass(frozen=True)
class ParkedEvent:
    """An event of ``billing.parked_events``. It is open while it has no ``resolution``."""

    id: str
    type: str
    reason: str
    payment_id: str | None
    user_reference: str | None
    """What the event names as its user, a UUID or not; ``None`` without a payload."""
    payer_email: str | None
    """The e-mail address of the person who paid; ``None`` if the event does not name it, or is resolved."""
    parked_at: datetime
    resolution: str | None
    """``settled`` or ``discarded``."""
    resolved_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None
    payload: str | None = None
    """The body of the event; ``None`` in a list, for a settled event, and 30 days after an event was discarded."""


@dataclass(frozen=True)
class Entry:
    """A row of ``public.transactions``; ``amount`` is in credits."""

    stripe_id: str | None
    amount: int
    user_id: str
    event_id: str | None
    """``None`` for a row that was entered by hand."""
    created_at: datetime


@dataclass(frozen=True)
class Reconciled:
    """The outcome of an object that reconciliation found, and the credits that it granted or took (below 0)."""

    object_id: str
    outcome: Outcome
    credits: int


@dataclass(frozen=True)
class Money:
    """The money of a payment as the ledger knows it, in minor units of its currency."""

    payment_id: str
    paid: int | None
    """``None`` if another id of the sale holds it."""
    currency: str | None
    refunded: int
    disputed: int
    invoice_credits: int | None
    """The credits that an invoice sold, ``None`` for other payments."""


@dataclass(frozen=True)
class LatestAssignment:
    """The latest assignment of a sale, with the number of its action."""

    number: int
    user_id: str | None
    credits: int | None


@dataclass(frozen=True)
class CurrentCounts:
    """Counts that the database has at the moment."""

    parked: int
    """Open parked events."""
    credits_given: int
    """Credits that operators have added to balances, ever."""
    credits_taken: int
    """Credits that operators have taken from balances, ever; not below 0."""


class Ledger:
    """Calls of the ``billing`` functions. It connects at the first call, and threads may share it.

    Each method raises :class:`LedgerUnavailableError` if the database cannot answer.
    """

    def __init__(
        self,
        database_url: str,
        call_hook: CallHook = lambda *_: nullcontext(),
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        self._database = Database(database_url, call_hook, connections=connections)
        self._record: GroupCommit[str, Outcome] = GroupCommit(self._record_batch)

    def record(self, event_id: str, facts: Sequence[Fact]) -> Outcome:
        """Merge the facts of an event and settle their sales. Return after the commit, which others may share."""
        delivery = {"event_id": event_id, "facts": [as_json(fact) for fact in facts]}
        return self._record(orjson.dumps(delivery).decode())

    def _record_batch(self, deliveries: Sequence[str]) -> list[Outcome]:
        name = "record_batch" if len(deliveries) > 1 else "record"
        results = self._value(name, deliveries=f"[{','.join(deliveries)}]")
        return [Outcome(result["outcome"], result.get("reason")) for result in results]

    def park(self, event: Event, reason: str, payment_id: str | None, payload: str) -> Outcome:
        """Store an event that cannot be settled. An event that was resolved before is a duplicate."""
        is_open = self._value(
            "park",
            event_id=event.id,
            event_type=event.type,
            reason=reason,
            payment_id=payment_id,
            payload=payload,
            user_reference=named_user(event),
            payer_email=payer_email(event.object),
        )
        return Outcome("parked", reason) if is_open else Outcome("duplicate")

    def reconcile(self, deliveries: Sequence[tuple[str, Sequence[Fact], bool]], *, dry_run: bool) -> list[Reconciled]:
        """Record objects in one transaction. Each is its id, its facts and whether it counts only if its sale is known.

        Return the outcome of each object that reports something new; ``left_alone`` if it did not count. A dry run
        returns the same for these objects and changes nothing, so the next call does not know them.
        """
        objects = [
            {"event_id": object_id, "facts": [as_json(fact) for fact in facts], "only_known": only_known}
            for object_id, facts, only_known in deliveries
        ]
        results = self._value("reconcile", deliveries=json.dumps(objects), dry_run=dry_run)
        return [
            Reconciled(each["event_id"], Outcome(each["outcome"], each.get("reason")), int(each["credits"]))
            for each in results
        ]

    def parked_already(self, object_id: str, payment_id: str | None) -> str | None:
        """Return why an object that cannot be settled is not to be parked, ``None`` if it is.

        ``waiting`` or ``discarded``: under an event of the object or its sale. ``settled``: its sale lacks nothing.
        """
        reason = self._value("parked_already", object_id=object_id, payment_id=payment_id)
        return reason if isinstance(reason, str) else None

    def settle_parked_sale(self, payment_id: str) -> str | None:
        """Settle a sale that is parked without an event of its own. Return why it cannot be, ``None`` if it is."""
        reason = self._value("settle_parked_sale", payment_id=payment_id)
        return reason if isinstance(reason, str) else None

    def open_objects(self, since: datetime) -> list[str]:
        """Return the ids of sales recorded since then that are not paid yet, and of open disputes."""
        return [row["id"] for row in self.rows("open_objects", since=since)]

    def reversals_without_sale(self, since: datetime) -> list[str]:
        """Return the payments of refunds and disputes recorded since then whose sale is unknown."""
        return [row["payment_id"] for row in self.rows("reversals_without_sale", since=since)]

    def unlinked(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the pairs of an invoice and one of its payments that the ledger does not link to one sale."""
        invoice_ids, payment_ids = ([pair[side] for pair in pairs] for side in (0, 1))
        rows = self.rows("unlinked_payments", invoice_ids=invoice_ids, payment_ids=payment_ids)
        return [(row["invoice_id"], row["payment_id"]) for row in rows]

    def money_of(self, payment_ids: Sequence[str]) -> list[Money]:
        """Return the money of those payments and invoices whose sale is known."""
        return [Money(**row) for row in self.rows("money_of_payments", payment_ids=list(payment_ids))]

    def granted(self, since: datetime, until: datetime) -> list[str]:
        """Return the ids of the sales that events or reconciliation granted in that period."""
        return [row["payment_id"] for row in self.rows("granted_payments", since=since, until=until)]

    def covered_until(self) -> datetime | None:
        """Return the time up to which finished reconciliations left no gap, ``None`` before the first."""
        at = self._value("covered_until")
        return at if isinstance(at, datetime) else None

    def begin_reconciliation(self, since: datetime, until: datetime) -> int:
        """Record that a run begins, and return its id."""
        return int(self._value("begin_reconciliation", since=since, until=until))

    def finish_reconciliation(self, run_id: int) -> None:
        """Record that a run has looked at its whole window."""
        self.rows("finish_reconciliation", run_id=run_id)

    def resolve(self, event_id: str) -> None:
        """Mark a parked event as settled, because it has nothing to do with credits."""
        self.rows("resolve", event_id=event_id)

    def parked_events(self) -> list[ParkedEvent]:
        """Return the open parked events, oldest first, without their payloads."""
        return [ParkedEvent(**row) for row in self.rows("parked_events")]

    def parked_event(self, event_id: str) -> ParkedEvent | None:
        """Return a parked event, open or resolved, with its payload; ``None`` if it was never parked."""
        rows = self.rows("parked_event", event_id=event_id)
        return ParkedEvent(**rows[0]) if rows else None

    def find_parked(self, key: str) -> list[ParkedEvent]:
        """Return the events with this event id, payment, user or payer, open or resolved, with their payloads."""
        pattern = _ID_IN_PAYLOAD.format(id=key) if _STRIPE_ID.fullmatch(key) else None
        rows = self.rows("find_parked", key=key, user_id=user_id_of(key), pattern=pattern)
        return [ParkedEvent(**row) for row in rows]

    def reopen(self, event: ParkedEvent) -> bool:
        """Put a discarded event back on the list. Return whether its payload was still kept."""
        payer = payer_email_in(event.payload or "")
        return bool(self._value("reopen", event_id=event.id, payer_email=payer))

    def entries_of(self, payment_id: str) -> list[Entry]:
        """Return the ledger rows of a sale, oldest first; the payment is any of its ids."""
        return [Entry(**row) for row in self.rows("entries_of_sale", payment_id=payment_id)]

    def latest_assignment(self, payment_id: str) -> LatestAssignment | None:
        """Return the latest assignment of the payment's sale that is not withdrawn."""
        rows = self.rows("latest_assignment", payment_id=payment_id)
        return LatestAssignment(**rows[0]) if rows else None

    def has_action(self, action_id: str) -> bool:
        """Return whether an operator's action has this id."""
        return bool(self._value("has_action", id=action_id))

    def current_counts(self) -> CurrentCounts:
        """Return what :class:`CurrentCounts` describes, from one query."""
        [row] = self.rows("current_counts")
        return CurrentCounts(**row)

    def is_schema_applied(self) -> bool:
        """Return whether any migration is applied."""
        return bool(self._value("is_schema_applied"))

    def schema_version(self) -> str:
        """Return the version of the newest migration in the database."""
        return str(self._value("schema_version"))

    def current_schema_version(self) -> str:
        """Return :meth:`schema_version`. Raise :class:`LedgerUnavailableError` if this code needs a newer one."""
        version, expected = self.schema_version(), expected_version()
        if version < expected:
            raise LedgerUnavailableError(f"schema {version}, expected {expected}: run webhook migrate")
        return version

    def role(self) -> str:
        """Return the role that statements run as."""
        return str(self._value("current_role"))

    def tables_without_rls(self) -> list[str]:
        """Return the tables of the ledger and of ``billing`` that lack row-level security."""
        return [row["subject"]["table"] for row in self._database.call(check("row_level_security"), {})]

    def permission_problems(self) -> list[str]:
        """Return the permissions that a role lacks or has too much, such as ``anon has select on public.users``."""
        return [row["problem"] for row in self._database.call(check("permissions"), {})]

    def trigger_problems(self) -> list[tuple[str, str]]:
        """Return each trigger that is missing or disabled, such as ``x on public.users is missing``, and its remedy."""
        expected = json.dumps([asdict(trigger) for trigger in triggers()])
        rows = self._database.call(check("triggers"), {"triggers": expected})
        return [(row["problem"], row["expected"]) for row in rows]

    def uncopied_accounts(self) -> tuple[int, int]:
        """Return the number of accounts without a row in ``public.users``, and of those with another email there."""
        [row] = self.rows("count_uncopied_accounts")
        return int(row["missing"]), int(row["outdated"])

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterator[Row]]]:
        """Yield a function that runs a check of ``sql/checks``. All checks see the ledger as it is now.

        The rows come one by one. The next check may run only after the last row.
        """
        with self._database.session() as connection:
            connection.execute(query("begin_snapshot"))
            yield lambda name: connection.cursor().stream(check(name))

    def rows(self, name: str, **parameters: Any) -> list[Row]:
        """Return the rows of the statement ``sql/queries/<name>.sql``."""
        return self._database.call(query(name), parameters)

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    def _value(self, name: str, **parameters: Any) -> Any:
        """Return the only column of the only row."""
        [row] = self.rows(name, **parameters)
        [value] = row.values()
        return value
