"""Credits follow money: no story of a customer grants more credits than the money that was paid buys."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from math import floor
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from support.invoices import Plan
from support.recorded import VERSIONS
from support.stripe_billing import Customer
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Facts, Ignored, Sale
from webhook.events.interpret import interpret
from webhook.events.lookups import InvoiceLines, Lookup, Price, ReadablePrice

EXAMPLES = int(os.environ.get("SETTLEMENT_EXAMPLES", "400")) // 4
BASIC = Plan("price_basic", 1000, 100)
PRO = Plan("price_pro", 5000, 700)
YEARLY = Plan("price_yearly", 9600, 1200, months=12)
TWO_YEARS = Plan("price_two_years", 9620, 1200, months=24)
PLANS = (BASIC, PRO, YEARLY, TWO_YEARS, Plan("price_tiny", 30, 3))
BEST = max(Fraction(plan.credits, plan.amount) for plan in PLANS)
"""Credits for a minor unit, with the best plan and without a coupon."""

plans = st.sampled_from(PLANS)
seats = st.integers(1, 3)
money = st.sampled_from([1, 30, 500, 1000, 9600])

ACTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "subscribe": st.fixed_dictionaries(
        {"plan": plans, "seats": seats}, optional={"days_to_anchor": st.integers(1, 31), "flagged": st.booleans()}
    ),
    "switch": st.fixed_dictionaries({"plan": plans, "seats": seats, "at_once": st.booleans()}),
    "reset_anchor": st.just({}),
    "cancel": st.fixed_dictionaries({"prorate": st.booleans()}),
    "wait": st.fixed_dictionaries({"days": st.integers(0, 70)}),
    "add_item": st.fixed_dictionaries({"amount": st.one_of(money, money.map(lambda amount: -amount))}),
    "credit_note": st.fixed_dictionaries({"amount": money}),
    "refund": st.fixed_dictionaries({"amount": money}),
    "set_coupon": st.fixed_dictionaries({"percent": st.sampled_from([0, 20, 50])}),
    "set_tax": st.fixed_dictionaries({"percent": st.sampled_from([0, 7, 20])}),
}


PRICES = {lookup(plan.price_id): plan.price() for plan in PLANS for lookup in (Price, ReadablePrice)}


def granted(customer: Customer, event: dict[str, Any]) -> int:
    """Return the credits of an invoice, 0 if it is ignored."""

    def resolve(lookup: Lookup) -> Any:
        return customer.lines[lookup.invoice_id] if isinstance(lookup, InvoiceLines) else PRICES[lookup]

    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False), resolve)
    match interpretation:
        case Ignored():
            return 0
        case Facts(facts):
            return next(fact.credits or 0 for fact in facts if isinstance(fact, Sale))
        case _:
            raise AssertionError(interpretation)


def kept(customer: Customer, event: dict[str, Any]) -> int:
    """Return the credits of an invoice after its refunds."""
    source, whole = event["data"]["object"], granted(customer, event)
    taken = customer.refunded[source["id"]]
    return whole - floor(Fraction(whole * taken, source["amount_paid"])) if taken else whole


def described(customer: Customer) -> str:
    lines = []
    for event in customer.events:
        source = event["data"]["object"]
        amounts = [line["amount"] for line in source["lines"]["data"]]
        balances = (source["starting_balance"], source["ending_balance"])
        lines.append(
            f"{source['billing_reason']} {amounts} {balances} paid {source['amount_paid']}: {granted(customer, event)}"
        )
    return "\n".join(lines)


customers = st.builds(Customer, metadata_credits=st.booleans(), version=st.sampled_from(VERSIONS))


def credits_bought(customer: Customer) -> tuple[int, int]:
    """Return the credits granted and the money paid."""
    return sum(granted(customer, event) for event in customer.events), customer.money


def test_switches_between_plans_of_one_price_grant_nothing() -> None:
    """Each total of 20 is below the minimum charge, so it is added to the debt and then taken off again."""
    customer = Customer()
    customer.subscribe(YEARLY)
    for _ in range(20):
        customer.switch(TWO_YEARS, 1, at_once=True)
        customer.switch(YEARLY, 1, at_once=True)
    assert credits_bought(customer) == (1200, 9600)


def test_five_switches_in_a_day_grant_what_was_paid() -> None:
    customer = Customer()
    customer.subscribe(BASIC)
    for plan in (YEARLY, BASIC, YEARLY, BASIC, YEARLY):
        customer.switch(plan, 1, at_once=True)
    assert credits_bought(customer) == (100 + 1075, 9600)


def test_downgrades_after_each_renewal_grant_what_was_paid() -> None:
    """The downgrade follows a renewal at once, and the upgrade comes right before the next one."""
    customer = Customer()
    customer.subscribe(PRO)
    for _ in range(3):
        customer.switch(BASIC, 1, at_once=False)
        customer.wait(27)
        customer.switch(PRO, 1, at_once=False)
        customer.wait(4)
    credits_, paid = credits_bought(customer)
    assert paid < 4 * PRO.amount / 2
    assert credits_ <= PRO.credits * paid / PRO.amount


def test_renewal_paid_from_a_credit_note_grants_nothing() -> None:
    customer = Customer()
    customer.subscribe(BASIC)
    customer.credit_note(1000)
    customer.wait(40)
    assert credits_bought(customer) == (100, 1000)
    assert len(customer.events) == 2


@settings(max_examples=EXAMPLES, deadline=None)
@given(customer=customers, data=st.data())
def test_credits_never_exceed_what_the_money_buys(customer: Customer, data: st.DataObject) -> None:
    """Small totals that Stripe adds to the debt, without any credit on the invoice, count as money.

    A refund is rounded in the customer's favour, so each may leave a part of a credit.
    """
    best_coupon = 0
    for name in data.draw(st.lists(st.sampled_from(list(ACTIONS)), min_size=2, max_size=14)):
        arguments = data.draw(ACTIONS[name])
        match name:
            case "set_coupon":
                customer.coupon = arguments["percent"]
            case "set_tax":
                customer.tax = arguments["percent"]
            case "subscribe" if customer.subscription:
                customer.cancel(prorate=True)
                customer.subscribe(**arguments)
            case _:
                getattr(customer, name)(**arguments)
        best_coupon = max(best_coupon, customer.coupon)
        bought = BEST * Fraction(100, 100 - best_coupon) * (customer.money + customer.small_debts)
        roundings = sum(1 for money in customer.refunded.values() if money)
        if sum(kept(customer, event) for event in customer.events) > bought + roundings:
            note(described(customer))
            raise AssertionError(f"money buys {float(bought)}")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    customer=customers,
    plan=plans,
    number=seats,
    coupon=st.sampled_from([0, 20, 50, 100]),
    tax=st.sampled_from([0, 7, 20]),
    part=st.integers(0, 30),
    flagged=st.booleans(),
    fees=st.lists(st.sampled_from([0, 1, 700]), min_size=5, max_size=5),
)
def test_customer_that_never_switches_gets_full_credits(  # noqa: PLR0913, PLR0917 - one for each drawn value
    customer: Customer, plan: Plan, number: int, coupon: int, tax: int, part: int, fees: list[int], *, flagged: bool
) -> None:
    """Coupons, taxes, fees and small totals change nothing; a part of the first period grants its part."""
    customer.coupon, customer.tax = coupon, tax
    customer.subscribe(plan, number, days_to_anchor=part, flagged=flagged)
    for fee in fees:
        customer.add_item(fee)
        customer.wait(40 * plan.months)
    whole = plan.credits * number
    [first, *renewals] = customer.events
    amount = first["data"]["object"]["lines"]["data"][0]["amount"]
    assert [granted(customer, event) for event in renewals] == [whole] * len(renewals)
    assert granted(customer, first) == (floor(Fraction(whole * amount, plan.amount * number)) if part else whole)
    assert len(renewals) >= 5
