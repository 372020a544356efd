"""What an event says about credits, in plain values: what Stripe's shapes become on their way to the ledger.

Facts merge in the database (``sql/*_settlement.sql``) in a way that forgets their order. ``credits`` are whole credits,
``money_amount`` is in the minor unit of ``currency``; ``None`` stands for what the source does not name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

SESSION, INVOICE, PAYMENT_INTENT = 1, 2, 3
"""The version of a sale fact is its source: the closer to the money, the higher."""


@dataclass(frozen=True)
class Sale:
    """One source's word on a sale."""

    kind: ClassVar = "sale"
    payment_id: str
    version: int
    user_id: str | None
    credits: int | None
    money_amount: int
    currency: str
    paid: bool
    customer_id: str | None = None
    """Who bought, where the source names no user: the Stripe customer."""
    priced: bool = False
    """Whether the credits were read from prices, which may sell another number by the time that they are read again."""


@dataclass(frozen=True)
class Customer:
    """A Stripe customer is this user."""

    kind: ClassVar = "customer"
    customer_id: str
    user_id: str


@dataclass(frozen=True)
class Link:
    """Two ids are one sale: ``in_…`` and a payment of it; ``id`` is the object that says so."""

    kind: ClassVar = "link"
    id: str
    invoice_id: str
    payment_id: str


@dataclass(frozen=True)
class Reversal:
    """What a refund or dispute has taken by now; ``version`` grows with the object's history."""

    kind: ClassVar = "reversal"
    id: str
    version: int
    payment_id: str
    money_amount: int
    currency: str


@dataclass(frozen=True)
class RefundedTotal:
    """So much of a payment is refunded, by refunds that nobody could ask for: tells what is missing, moves nothing."""

    kind: ClassVar = "refunded_total"
    payment_id: str
    money_amount: int


Fact = Sale | Customer | Link | Reversal | RefundedTotal


@dataclass(frozen=True)
class Facts:
    """The event is about credits and says these."""

    facts: tuple[Fact, ...]

    @property
    def payment_id(self) -> str | None:
        """Return the sale that they are about."""
        return next((fact.payment_id for fact in self.facts if not isinstance(fact, Customer)), None)


@dataclass(frozen=True)
class Ignored:
    """The event has nothing to do with credits."""

    reason: str
    missing_setting: str | None = field(default=None, compare=False)
    """The setting without which nobody can tell for sure: with it, the event may be about credits after all."""


@dataclass(frozen=True)
class Unresolvable:
    """The event is about credits and cannot be settled as it is; ``reason`` is one of ``billing.parked_events``'."""

    reason: str
    payment_id: str | None = None


Interpretation = Facts | Ignored | Unresolvable


def as_json(fact: Fact) -> dict[str, Any]:
    """Return the fact as ``billing.record`` takes it."""
    return {"kind": fact.kind, **vars(fact)}
