"""The rows of a story, as dataclasses. Credits are whole; money is in minor units of its currency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Protocol, TypeVar

from webhook.ledger.ledger import ParkedEvent

__all__ = [
    "Action",
    "Assignment",
    "Claim",
    "Entry",
    "Fact",
    "Hold",
    "MergedSale",
    "ParkedEvent",
    "Purchase",
    "Reversal",
    "Rows",
    "UnpaidSale",
    "records",
]

Record = TypeVar("Record")


class Rows(Protocol):
    """Runs named queries, as :class:`webhook.ledger.ledger.Ledger` does."""

    def rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of ``sql/queries/<name>.sql``; raises :class:`LedgerUnavailableError`."""


@dataclass(frozen=True)
class MergedSale:
    """A sale as all its facts together describe it (``billing.sale_of``)."""

    payment_id: str
    user_id: str | None
    credits: int | None
    money_amount: int | None
    currency: str | None
    paid: bool
    erased: bool
    forgotten: bool
    claimants: list[str] | None
    """The users to whom the claims lead; ``None`` if a fact names the user."""


@dataclass(frozen=True)
class Fact:
    """What one source reports about a sale."""

    payment_id: str
    version: int
    """The source: 0 entered by hand, 1 Checkout Session, 2 invoice, 3 PaymentIntent."""
    user_id: str | None
    user_exists: bool
    credits: int | None
    money_amount: int | None
    currency: str | None
    paid: bool
    subscription_id: str | None
    customer_id: str | None
    recorded_at: datetime


@dataclass(frozen=True)
class Assignment:
    """An operator's assignment of a sale: the user, the credits or both. ``number`` is that of the action."""

    number: int
    payment_id: str
    user_id: str | None
    credits: int | None
    withdrawn_by: int | None
    """The number of the action that ended it."""


@dataclass(frozen=True)
class Claim:
    """A subscription or customer is for this user (``billing.claims``)."""

    subject_id: str
    user_id: str
    level: int
    customer_id: str | None
    is_erased: bool
    user_exists: bool


@dataclass(frozen=True)
class Reversal:
    """A refund or dispute, and the money that is gone because of it now."""

    reversal_id: str
    version: int
    payment_id: str
    money_amount: int
    currency: str
    event_id: str
    recorded_at: datetime

    @property
    def is_dispute(self) -> bool:
        """Whether it is a dispute, else it is a refund."""
        return self.reversal_id.startswith(("dp_", "du_"))


@dataclass(frozen=True)
class Entry:
    """A row of the ledger, ``public.transactions``; ``amount`` is in credits."""

    id: str
    user_id: str
    amount: int
    type: str
    stripe_id: str | None
    payment_id: str | None
    money_amount: int | None
    currency: str | None
    refunds: str | None
    event_id: str | None
    description: str | None
    created_at: datetime


@dataclass(frozen=True)
class Hold:
    """Credits that are reserved for a generation."""

    id: str
    amount: int
    expires_at: datetime
    captured_at: datetime | None
    released_at: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class Action:
    """An action of an operator."""

    number: int
    action: str
    subject: str | None
    by: str
    channel: str
    login: str
    reason: str | None
    description: str | None
    credits_given: int
    credits_taken: int
    created_at: datetime


@dataclass(frozen=True)
class UnpaidSale:
    """A sale whose payment Stripe has not confirmed yet."""

    payment_id: str
    credits: int | None
    money_amount: int | None
    currency: str | None
    recorded_at: datetime


@dataclass(frozen=True)
class Purchase:
    """Another purchase of the same user."""

    payment_id: str
    created_at: datetime


def record(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """Return a dataclass from a row or a json object: text becomes a time where the field has one."""
    values = {field.name: row.get(field.name) for field in fields(kind)}  # type: ignore[arg-type]
    times = [field.name for field in fields(kind) if "datetime" in str(field.type)]  # type: ignore[arg-type]
    return kind(**values | {name: _time(values[name]) for name in times})


def records(kind: type[Record], rows: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    """Return a dataclass for each row, as :func:`record` does."""
    return tuple(record(kind, row) for row in rows)


def _time(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
