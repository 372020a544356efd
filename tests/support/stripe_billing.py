"""A model of Stripe Billing for one customer: subscriptions, prorations, invoices, and the customer's balance.

It follows Stripe's documentation, not the worker: https://docs.stripe.com/billing/subscriptions/prorations and
https://docs.stripe.com/billing/customer/balance. It counts the money that the customer really paid.
"""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from support.invoices import NEWEST, SUBSCRIPTION, Line, Plan, shapes_of, subscription_invoice

MINIMUM_CHARGE = 50
"""Minor units. A smaller amount due is added to the customer's balance instead of being charged."""


@dataclass
class Subscription:
    """A subscription in its current period."""

    id: str
    plan: Plan
    seats: int
    start: datetime
    end: datetime
    net: int
    """What this period costs after discounts, in minor units."""

    def unused(self, now: datetime) -> int:
        """Return the price of the rest of the period, in minor units."""
        return round(self.net * Fraction(_seconds(self.end - now), _seconds(self.end - self.start)))

    def full_price(self) -> int:
        return self.plan.amount * self.seats


@dataclass
class Customer:
    """A customer and all that Stripe billed. Amounts are in minor units."""

    metadata_credits: bool = True
    """Whether the subscription's metadata has the credits of all seats; else each price has those of a seat."""
    version: str = NEWEST
    now: datetime = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
    balance: int = 0
    """Below 0 if the customer has a credit, above 0 if the customer owes money."""
    money: int = 0
    """All money that the customer paid, less refunds."""
    small_debts: int = 0
    """Totals below the minimum charge that became debts, of invoices that credit nothing."""
    coupon: int = 0
    """Per cent."""
    tax: int = 0
    """Per cent, exclusive."""
    subscription: Subscription | None = None
    pending: list[Line] = field(default_factory=list)
    """Invoice items that wait for the next invoice."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The ``invoice.paid`` of each invoice."""
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """All lines of each invoice."""
    refunded: Counter[str] = field(default_factory=Counter)
    """The money of each invoice that went back to the card."""

    # What a customer or the shop does

    def subscribe(
        self, plan: Plan, seats: int = 1, *, days_to_anchor: int = 0, flagged: bool = False, trial: int = 0
    ) -> None:
        """Start a subscription, with a part of a period before an anchor, or with a trial of some days.

        ``flagged`` makes the line of the part a proration.
        """
        days = days_to_anchor or trial
        end = min(self.now + timedelta(days), self._end(plan)) if days else self._end(plan)
        number = sum(event["data"]["object"]["billing_reason"] == "subscription_create" for event in self.events)
        name = SUBSCRIPTION if not number else f"{SUBSCRIPTION}_{number + 1}"
        self.subscription = Subscription(name, plan, seats, self.now, end, 0)
        part = Fraction(_seconds(end - self.now), _seconds(self._end(plan) - self.now))
        price = 0 if trial else round(self.subscription.full_price() * part)
        line = replace(self._period_line(price), proration=flagged and bool(days_to_anchor))
        trial_line = replace(line, description="Trial period for Credits plan")
        self._bill([trial_line if trial else line], "subscription_create")

    def switch(self, plan: Plan, seats: int, *, at_once: bool) -> None:
        """Change plan or seats with prorations, on an invoice ``at_once`` or on the next one."""
        if self.subscription is None:
            return
        unused = self._credit_of_unused_time()
        old, self.subscription = self.subscription, replace(self.subscription, plan=plan, seats=seats)
        if plan.months != old.plan.months or old.net == 0:
            self._start_period(unused)
            return
        rest = Fraction(_seconds(old.end - self.now), _seconds(old.end - old.start))
        self.subscription.net = self._discounted(self.subscription.full_price())
        charge = self._line(plan, round(self.subscription.net * rest), seats, self.now, old.end, proration=True)
        self.pending += [*unused, charge]
        if at_once:
            self._bill([], "subscription_update")

    def reset_anchor(self) -> None:
        """Begin a whole new period now."""
        if self.subscription:
            self._start_period(self._credit_of_unused_time())

    def cancel(self, *, prorate: bool) -> None:
        """End the subscription now, with a credit for the unused time or without."""
        if self.subscription and prorate:
            self.pending += self._credit_of_unused_time()
            self._bill([], "manual")
        self.subscription = None

    def wait(self, days: int) -> None:
        """Let time pass; each period that ends is renewed."""
        until = self.now + timedelta(days=days)
        while self.subscription and self.subscription.end <= until:
            self.now = self.subscription.end
            self._renew()
        self.now = until

    def add_item(self, amount: int) -> None:
        """Add a fee, or below 0 a discount, to the next invoice."""
        self.pending.append(self._line(None, amount, 1, self.now, self.now))

    def credit_note(self, amount: int) -> None:
        """Give money of the last invoice back to the balance."""
        if self.events:
            source = self.events[-1]["data"]["object"]
            given = min(amount, source["amount_paid"] - source["post_payment_credit_notes_amount"])
            source["post_payment_credit_notes_amount"] += given
            self.balance -= given

    def refund(self, amount: int) -> None:
        """Give money of the last invoice back to the card."""
        if self.events:
            source = self.events[-1]["data"]["object"]
            given = min(amount, source["amount_paid"] - self.refunded[source["id"]])
            self.refunded[source["id"]] += given
            self.money -= given

    # How Stripe bills it

    def _renew(self) -> None:
        assert self.subscription
        self.subscription.start, self.subscription.end = self.now, self._end(self.subscription.plan)
        self._bill([self._period_line(self.subscription.full_price())], "subscription_cycle")

    def _start_period(self, unused: list[Line]) -> None:
        assert self.subscription
        self.subscription.start, self.subscription.end = self.now, self._end(self.subscription.plan)
        self._bill([*unused, self._period_line(self.subscription.full_price())], "subscription_update")

    def _period_line(self, amount: int) -> Line:
        """Return the regular line of the current period, and note its price for later prorations."""
        now = self.subscription
        assert now
        self.subscription = replace(now, net=self._discounted(amount))
        line = self._line(now.plan, amount, now.seats, now.start, now.end)
        return replace(line, discount=amount - self._discounted(amount))

    def _credit_of_unused_time(self) -> list[Line]:
        now = self.subscription
        assert now
        unused = now.unused(self.now)
        return [self._line(now.plan, -unused, now.seats, self.now, now.end, proration=True)] if unused else []

    def _line(  # noqa: PLR0913 - the fields of a line
        self, plan: Plan | None, amount: int, quantity: int, start: datetime, end: datetime, *, proration: bool = False
    ) -> Line:
        name = self.subscription.id if self.subscription else SUBSCRIPTION
        return Line(
            plan,
            amount,
            int(start.timestamp()),
            int(end.timestamp()),
            quantity,
            proration=proration,
            subscription=name,
        )

    def _bill(self, lines: list[Line], reason: str) -> None:
        """Finalize and pay an invoice of the waiting items and these lines."""
        lines = [line.with_tax(self.tax) for line in (*self.pending, *lines)]
        self.pending = []
        before, due = self.balance, self.balance + sum(line.total() for line in lines)
        self.balance = due if due < MINIMUM_CHARGE else 0
        self.money += due - self.balance
        if all(line.amount >= 0 for line in lines):
            self.small_debts += max(0, max(0, self.balance) - max(0, before))
        now = self.subscription
        credits_ = now.plan.credits * now.seats if now else 0
        event = subscription_invoice(
            *lines,
            reason=reason,
            created=int(self.now.timestamp()),
            version=self.version,
            credits=credits_ if self.metadata_credits else None,
            balance=before,
            ending_balance=self.balance,
            id=f"in_{len(self.events)}",
        )
        self.lines[event["data"]["object"]["id"]] = shapes_of(lines, self.version)
        source = event["data"]["object"]
        holder = source if "subscription" in source else source["parent"]["subscription_details"]
        holder["subscription"] = now.id if now else SUBSCRIPTION
        self.events.append(event)

    def _discounted(self, amount: int) -> int:
        return amount - amount * self.coupon // 100

    def _end(self, plan: Plan) -> datetime:
        year, month = divmod(self.now.year * 12 + self.now.month - 1 + plan.months, 12)
        return self.now.replace(year=year, month=month + 1, day=min(self.now.day, monthrange(year, month + 1)[1]))


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())
