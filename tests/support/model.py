"""A model of sales: the events that Stripe sends for them, and the balances that must result.

The model follows the rules (docs/settlement.md), not the SQL. It looks at how each sale, refund and dispute ended,
never at an event.
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
    """An id that is unique in this run."""
    return f"{prefix}_{_run}{next(_numbers):08}"


@dataclass(frozen=True)
class Refund:
    """A refund and the statuses that it went through."""

    amount: int
    statuses: Sequence[str]

    def money(self) -> Fraction:
        """What it took in the end."""
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
    """A dispute, and its moves: what the balance lost or got back, then how it was closed."""

    amount: int
    moves: Sequence[int]
    status: str

    def money(self) -> int:
        """What it took in the end, in whole minor units, rounded in the founder's favour."""
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
    """Buyer, credits and money of a sale, as one source states them."""

    user_id: str
    credits: int
    money: int


@dataclass(frozen=True)
class Payment:
    """One ``pi_…`` and what was taken back of it."""

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

    Sources are named "session", "unpaid session", "intent", "capture" (manual, without credits) and "invoice". Some
    state only a part: "user session", "credits intent", and "customer invoice", whose user is in the session that
    began the subscription.
    """

    sources: dict[str, SaleTerms]
    payments: Sequence[Payment]
    invoice_id: str = field(default_factory=lambda: new_id("in"))
    customer_id: str = field(default_factory=lambda: new_id("cus"))

    def terms(self) -> SaleTerms:
        """The terms that count: those of the source closest to the money; a partial source counts for its part."""
        closest = ("credits intent", "intent", "customer invoice", "invoice", "session", "unpaid session")
        terms = next(self.sources[name] for name in closest if name in self.sources)
        user_id = self.sources["user session"].user_id if "user session" in self.sources else terms.user_id
        money = self.sources["capture"].money if "capture" in self.sources else terms.money
        return SaleTerms(user_id, terms.credits, money)

    def is_paid(self) -> bool:
        return set(self.sources) != {"unpaid session"}

    def kept(self) -> int:
        """The credits that are left of it."""
        terms = self.terms()
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
                yield invoice_event(**common, id=self.invoice_id, amount_paid=terms.money)
        if name == "customer invoice":
            began = common | {"event_id": new_id("evt"), "user_id": terms.user_id}
            yield session_event("checkout.session.completed.subscription", **began, id=new_id("cs"))


def events_of(sales: Sequence[Sale]) -> list[Event]:
    """All events of the sales, in the order in which they happened."""
    return [event for sale in sales for event in sale.events()]


def expected_balances(sales: Sequence[Sale], users: Sequence[str]) -> dict[str, int]:
    """What every user must have once everything has arrived."""
    balances = Counter(dict.fromkeys(users, 0))
    for sale in sales:
        balances[sale.terms().user_id] += sale.kept()
    return dict(balances)
