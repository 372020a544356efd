"""A model of sales: the events that Stripe sends for them, and the balances that must result.

The model follows the rules in docs/explanation/settlement.md, not the SQL. It uses the final state of each sale, refund
and dispute, never an event.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import Any

from support.recorded import (
    dispute_event,
    invoice_event,
    invoice_payment_event,
    payment_intent_event,
    refund_event,
    session_event,
)

Event = dict[str, Any]

_numbers = count(1)
_run = uuid.uuid4().hex[:8]


def new_id(prefix: str) -> str:
    """Return an id that is unique in this run."""
    return f"{prefix}_{_run}{next(_numbers):08}"


@dataclass(frozen=True)
class Refund:
    """A refund, in minor units, and its statuses over time."""

    amount: int
    statuses: Sequence[str]

    def money(self) -> Fraction:
        """Return the refunded money in minor units: 0 if the refund failed or was canceled."""
        return Fraction(0 if {"failed", "canceled"} & set(self.statuses) else self.amount)

    def events(self, payment_id: str) -> Iterator[Event]:
        names = {"failed": "refund.failed", "canceled": "refund.updated.canceled"}
        refund_id = new_id("re")
        for index, status in enumerate(self.statuses):
            name = names.get(status, "refund.updated" if index else "refund.created")
            yield refund_event(
                name,
                event_id=new_id("evt"),
                id=refund_id,
                payment_intent=payment_id,
                amount=self.amount,
                status=status,
            )


@dataclass(frozen=True)
class Dispute:
    """A dispute, its balance transactions (negative: withdrawn, positive: reinstated) and its final status."""

    amount: int
    moves: Sequence[int]
    status: str

    def money(self) -> int:
        """Return the money that stays withdrawn, in whole minor units, rounded in the merchant's favor."""
        took = -sum(move for move in self.moves if move < 0)
        gave = sum(move for move in self.moves if move > 0)
        if took == 0 or self.status == "won":
            return 0
        return max(0, math.ceil(self.amount * (1 - Fraction(gave, took))))

    def events(self, payment_id: str) -> Iterator[Event]:
        dispute_id = new_id("du")
        snapshots = [self.moves[:length] for length in range(len(self.moves) + 1)]
        for moves in snapshots:
            name = "charge.dispute.funds_reinstated" if moves and moves[-1] > 0 else "charge.dispute.created"
            yield self._event(name, dispute_id, payment_id, moves, "needs_response")
        yield self._event("charge.dispute.closed.lost", dispute_id, payment_id, self.moves, self.status)

    def _event(self, name: str, dispute_id: str, payment_id: str, moves: Sequence[int], status: str) -> Event:
        return dispute_event(
            name,
            event_id=new_id("evt"),
            balance_transactions=moves,
            id=dispute_id,
            payment_intent=payment_id,
            amount=self.amount,
            status=status,
        )


@dataclass(frozen=True)
class SaleTerms:
    """The buyer, credits and money of a sale, as one source states them."""

    user_id: str
    credits: int
    money: int


@dataclass(frozen=True)
class Payment:
    """One PaymentIntent and its refunds and disputes."""

    reversals: Sequence[Refund | Dispute]
    id: str = field(default_factory=lambda: new_id("pi"))

    def money_reversed(self) -> Fraction:
        return sum((Fraction(reversal.money()) for reversal in self.reversals), Fraction())

    def reversal_events(self) -> Iterator[Event]:
        for reversal in self.reversals:
            yield from reversal.events(self.id)


@dataclass(frozen=True)
class Sale:
    """A sale: its terms by source, and its payments.

    Sources are "session", "unpaid session", "intent", "capture" (manual capture, without credits) and "invoice". Some
    state only a part: "user session", "credits intent" and "customer invoice". The user of a "customer invoice" is in
    the session that started the subscription.
    """

    sources: dict[str, SaleTerms]
    payments: Sequence[Payment]
    invoice_id: str = field(default_factory=lambda: new_id("in"))
    customer_id: str = field(default_factory=lambda: new_id("cus"))
    subscription_id: str = field(default_factory=lambda: new_id("sub"))

    def terms(self) -> SaleTerms:
        """Return the terms of the source closest to the money. A partial source overrides only its part."""
        closest = ("credits intent", "intent", "customer invoice", "invoice", "session", "unpaid session")
        terms = next(self.sources[name] for name in closest if name in self.sources)
        user_id = self.sources["user session"].user_id if "user session" in self.sources else terms.user_id
        money = self.sources["capture"].money if "capture" in self.sources else terms.money
        return SaleTerms(user_id, terms.credits, money)

    def is_paid(self) -> bool:
        return set(self.sources) != {"unpaid session"}

    def remaining_credits(self, terms: SaleTerms | None = None) -> int:
        """Return the credits that remain after refunds and disputes; ``terms`` are by default Stripe's."""
        terms = terms or self.terms()
        if not self.is_paid():
            return 0
        gone = sum((payment.money_reversed() for payment in self.payments), Fraction())
        share = min(gone / terms.money, Fraction(1)) if terms.money else Fraction(0)
        return terms.credits - math.floor(terms.credits * share)

    def events(self) -> Iterator[Event]:
        for name, terms in self.sources.items():
            yield from self._source_events(name, terms)
        if any("invoice" in name for name in self.sources):
            for payment in self.payments:
                yield invoice_payment_event(
                    event_id=new_id("evt"), id=new_id("inpay"), invoice=self.invoice_id, payment_intent=payment.id
                )
        for payment in self.payments:
            yield from payment.reversal_events()

    def _source_events(self, name: str, terms: SaleTerms) -> Iterator[Event]:
        user_id = None if name in ("credits intent", "customer invoice") else terms.user_id
        stated = None if name == "user session" else terms.credits
        common = {
            "event_id": new_id("evt"),
            "user_id": user_id,
            "credits": stated,
            "customer": self.customer_id,
        }
        payment_id = self.payments[0].id
        match name:
            case "session" | "unpaid session" | "user session":
                yield session_event(
                    "checkout.session.completed" + ".unpaid" * (name == "unpaid session"),
                    **common,
                    id=new_id("cs"),
                    payment_intent=payment_id,
                    amount=terms.money,
                    invoice=self.invoice_id if "invoice" in self.sources else None,
                )
            case "intent" | "credits intent":
                yield payment_intent_event(**common, id=payment_id, amount=terms.money)
            case "capture":
                capture = "payment_intent.succeeded.manual_capture"
                yield payment_intent_event(capture, event_id=new_id("evt"), id=payment_id, amount_received=terms.money)
            case _:
                named = {"id": self.invoice_id, "subscription": self.subscription_id}
                yield invoice_event(**common, **named, amount_paid=terms.money)
        if name == "customer invoice":
            started = common | {"event_id": new_id("evt"), "user_id": terms.user_id}
            named = {"id": new_id("cs"), "subscription": self.subscription_id}
            yield session_event("checkout.session.completed.subscription", **started, **named)


def events_of(sales: Sequence[Sale]) -> list[Event]:
    """Return all events of the sales, in the order in which they happened."""
    return [event for sale in sales for event in sale.events()]


def expected_balances(sales: Sequence[Sale], users: Sequence[str]) -> dict[str, int]:
    """Return every user's balance, in credits, after all events have been delivered."""
    balances = Counter(dict.fromkeys(users, 0))
    for sale in sales:
        balances[sale.terms().user_id] += sale.remaining_credits()
    return dict(balances)
