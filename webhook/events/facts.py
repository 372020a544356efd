"""Facts: what an event states about credits, in plain values instead of Stripe's shapes.

The database merges facts (``sql/*_settlement.sql``); their order makes no difference. ``credits`` are whole credits.
``money_amount`` is in minor units of ``currency``. ``None`` stands for a value that the source does not contain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

SESSION, INVOICE, PAYMENT_INTENT = 1, 2, 3
"""The versions of sale facts by their source. The closer the source is to the money, the higher the version."""

INVOICE_METADATA, SESSION_METADATA, SESSION_REFERENCE, ONE_TIME_SALE, ONE_TIME_PAYMENT, GIFT = 4, 3, 2, 1, 0, -1
"""The levels of claims. PaymentIntents and one-time invoices are as weak as sessions, but cannot name a payer beside
the receiver. So a gift claims nothing, and it cancels the claims of its receiver by them."""


@dataclass(frozen=True)
class Sale:
    """A sale, as one source describes it."""

    kind: ClassVar = "sale"
    payment_id: str
    version: int
    user_id: str | None
    credits: int | None
    money_amount: int
    currency: str
    paid: bool
    subscription_id: str | None = None
    """The Stripe subscription, if the source names no user."""
    customer_id: str | None = None
    """The Stripe customer, if the source names no user."""
    priced: bool = False
    """Whether the credits come from prices, whose metadata may have changed by the next read."""
    unusable: str | None = None
    """Why the source's own user or credits count as missing: the reason to park the sale while it is incomplete."""


@dataclass(frozen=True)
class Claim:
    """A subscription, or a Stripe customer if ``subscription_id`` is ``None``, is for this user.

    The claims with the highest ``level`` decide for which user the sales are that name none.
    """

    kind: ClassVar = "claim"
    subscription_id: str | None
    customer_id: str | None
    """The subscription's customer, else the customer that is claimed."""
    user_id: str
    level: int
    created: int | None = None
    """When the invoice was created, in seconds since 1970. The newest of a subscription's invoices counts."""


@dataclass(frozen=True)
class Link:
    """Two ids are one sale: ``in_…`` and a payment of it. ``id`` is the object that states this."""

    kind: ClassVar = "link"
    id: str
    invoice_id: str
    payment_id: str


@dataclass(frozen=True)
class Reversal:
    """The money that a refund or dispute has taken so far; ``version`` grows with the object's history."""

    kind: ClassVar = "reversal"
    id: str
    version: int
    payment_id: str
    money_amount: int
    currency: str


@dataclass(frozen=True)
class RefundedTotal:
    """The refunded total of a payment whose refunds could not be listed.

    It shows that refunds are missing, and changes no credits.
    """

    kind: ClassVar = "refunded_total"
    payment_id: str
    money_amount: int


Fact = Sale | Claim | Link | Reversal | RefundedTotal


@dataclass(frozen=True)
class Facts:
    """The event is about credits and states these facts."""

    facts: tuple[Fact, ...]

    @property
    def payment_id(self) -> str | None:
        """The sale that the facts are about."""
        return next((fact.payment_id for fact in self.facts if not isinstance(fact, Claim)), None)


@dataclass(frozen=True)
class Ignored:
    """The event has nothing to do with credits."""

    reason: str
    missing_setting: str | None = field(default=None, compare=False)
    """The setting that is needed to be certain: with it, the event may turn out to be about credits."""


@dataclass(frozen=True)
class Unresolvable:
    """The event is about credits but cannot be settled; ``reason`` is one of ``billing.parked_events``."""

    reason: str
    payment_id: str | None = None
    facts: tuple[Fact, ...] = field(default=(), compare=False)
    """What it states about money. Another source or an operator may name the user and the credits."""


Interpretation = Facts | Ignored | Unresolvable


def as_json(fact: Fact) -> dict[str, Any]:
    """Return the fact in the form that ``billing.record`` takes."""
    return {"kind": fact.kind, **vars(fact)}
