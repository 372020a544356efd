"""A model of claims: who sales are for that name nobody, independent of the SQL.

The model follows docs/explanation/settlement.md. It knows the events of a story as a set, never their order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from support.model import Event, Payment, new_id
from support.recorded import invoice_event, invoice_payment_event, payment_intent_event, session_event


@dataclass(frozen=True)
class Change:
    """A user signs up or is erased, between two events."""

    action: str
    user_id: str


ORDER = "order_1234"
"""A reference that is no user."""

Step = Event | Change
Claims = dict[str, list[tuple[int, str, int]]]
"""For each subscription or customer: level, user and time of its claims."""


@dataclass(frozen=True)
class Start:
    """A Checkout Session starts a subscription. It may name a user twice."""

    subscription: str
    customer: str
    user_id: str | None
    reference: str | None

    def events(self) -> Iterator[Event]:
        yield session_event(
            "checkout.session.completed.subscription",
            event_id=new_id("evt"),
            id=new_id("cs"),
            user_id=self.user_id,
            client_reference_id=self.reference,
            subscription=self.subscription,
            customer=self.customer,
        )

    def claims(self) -> Iterator[tuple[str, int, str | None, int]]:
        yield self.subscription, 3, self.user_id, 0
        yield self.subscription, 2, self.reference, 0


@dataclass(frozen=True)
class Sold:
    """Credits that were sold, and what happened to the money."""

    credits: int
    money: int
    payment: Payment

    def remaining(self) -> int:
        gone = min(self.payment.money_reversed() / self.money, Fraction(1))
        return self.credits - math.floor(self.credits * gone)


@dataclass(frozen=True)
class Renewal:
    """An invoice of a subscription, paid by one payment."""

    subscription: str
    customer: str
    user_id: str | None
    created: int
    sold: Sold
    payment_id: str = field(default_factory=lambda: new_id("in"))

    def events(self) -> Iterator[Event]:
        yield invoice_event(
            event_id=new_id("evt"),
            id=self.payment_id,
            user_id=self.user_id,
            credits=self.sold.credits,
            amount_paid=self.sold.money,
            subscription=self.subscription,
            customer=self.customer,
            created=self.created,
        )
        payment = self.sold.payment
        yield invoice_payment_event(
            event_id=new_id("evt"), id=new_id("inpay"), invoice=self.payment_id, payment_intent=payment.id
        )
        yield from payment.reversal_events()

    def claims(self) -> Iterator[tuple[str, int, str | None, int]]:
        yield self.subscription, 4, self.user_id, self.created


@dataclass(frozen=True)
class Purchase:
    """A one-time sale. It is a gift if the reference is another user than the receiver.

    If `has_intent`, its PaymentIntent names the receiver as well. It never names the payer.
    """

    customer: str
    user_id: str | None
    reference: str | None
    has_intent: bool
    sold: Sold

    def events(self) -> Iterator[Event]:
        named = {"user_id": self.user_id, "credits": self.sold.credits, "customer": self.customer}
        payment, money = self.sold.payment, self.sold.money
        yield session_event(
            event_id=new_id("evt"),
            id=new_id("cs"),
            **named,
            client_reference_id=self.reference,
            payment_intent=payment.id,
            amount=money,
        )
        if self.has_intent:
            yield payment_intent_event(event_id=new_id("evt"), id=payment.id, **named, amount=money)
        yield from payment.reversal_events()

    @property
    def payment_id(self) -> str:
        return self.sold.payment.id

    def claims(self) -> Iterator[tuple[str, int, str | None, int]]:
        if self.reference in (None, self.user_id, ORDER):
            yield self.customer, 1, self.user_id, 0


@dataclass(frozen=True)
class Story:
    """What happened, and the users who exist at the end or were erased."""

    parts: Sequence[Start | Renewal | Purchase]
    changes: Sequence[Change]
    users: Sequence[str]
    erased: Sequence[str]

    def steps(self) -> list[Step]:
        return [*self.changes, *(event for part in self.parts for event in part.events())]

    @property
    def sales(self) -> list[Renewal | Purchase]:
        return [part for part in self.parts if not isinstance(part, Start)]

    def balances(self) -> dict[str, int]:
        """Return the balance of each user who exists at the end, in credits."""
        balances = Counter(dict.fromkeys(self.users, 0))
        for sale in self.sales:
            for user in self.owners(sale):
                balances[user] += sale.sold.remaining()
        return {user: balances[user] for user in self.users}

    def owners(self, sale: Renewal | Purchase) -> list[str]:
        """Return the user of a sale as a list, empty if it is nobody's."""
        claimants = {sale.user_id} if sale.user_id else self.claimants(sale)
        return list(claimants) if len(claimants) == 1 else []

    def claimants(self, sale: Renewal | Purchase) -> set[str]:
        """Return the users to whom the claims lead."""
        claims = self._counting_claims()
        subscriptions = {
            part.subscription
            for part in self.parts
            if not isinstance(part, Purchase) and part.customer == sale.customer
        }
        own = _strongest(claims[sale.subscription]) if isinstance(sale, Renewal) else set()
        strong = {user for subscription in subscriptions for user in _strongest(claims[subscription])}
        return own or strong or {user for _, user, _ in claims[sale.customer]}

    def _counting_claims(self) -> Claims:
        claims: Claims = defaultdict(list)
        for part in self.parts:
            for subject, level, user, created in part.claims():
                if user in self.users or user in self.erased:
                    claims[subject].append((level, str(user), created))
        return claims


def _strongest(claims: Sequence[tuple[int, str, int]]) -> set[str]:
    """Return the users of the claims with the highest level and then the latest time."""
    most = max(((level, created) for level, _, created in claims), default=None)
    return {user for level, user, created in claims if (level, created) == most}
