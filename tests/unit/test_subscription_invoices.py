"""Periods are judged by lines, and credits follow money: what an invoice of a subscription grants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from support.invoices import DAY, OLDEST, Line, Plan, shapes_of, subscription_invoice
from support.recorded import NEWEST, USER_ID, VERSIONS, recorded
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Facts, Ignored, Interpretation, Sale, Unresolvable
from webhook.events.interpret import interpret
from webhook.events.lookups import InvoiceLines, Lookup, Price, ReadablePrice

NOW = 1_768_435_200  # 2026-01-15 00:00 UTC
MONTH, YEAR = NOW + 31 * DAY, NOW + 365 * DAY
MONTHLY = Plan("price_monthly", 1000, 100)
PRO = Plan("price_pro", 5000, 700)
ANNUAL = Plan("price_yearly", 9600, 1200, months=12)
ADD_ON = Plan("price_add_on", 3000)
USAGE = Plan("price_usage", 50, 50, usage_type="metered")
FREE = Plan("price_free", 0)

MONTHLY_LINE = Line(MONTHLY, 1000, NOW, MONTH)
YEARLY_LINE = Line(ANNUAL, 9600, NOW, YEAR)
UNUSED = Line(MONTHLY, -500, NOW, MONTH, proration=True)
FEE = Line(None, 700, NOW, NOW)
TRIAL = Line(MONTHLY, 0, NOW, NOW + 7 * DAY, description="Trial period for Credits plan")


def key_for(*prices: dict[str, Any]) -> dict[Lookup, Any]:
    """Return the lookup results of a key that may read these prices."""
    product = {"id": "prod_1", "object": "product", "metadata": {}}
    return {lookup(price["id"]): price | {"product": product} for price in prices for lookup in (Price, ReadablePrice)}


KEY: Mapping[Lookup, Any] = key_for(*(plan.price() for plan in (MONTHLY, PRO, ANNUAL, ADD_ON, USAGE, FREE)))
NO_KEY: Mapping[Lookup, Any] = {}


def outcome(*lines: Line, key: Mapping[Lookup, Any] = KEY, **fields: Any) -> Interpretation:
    event = subscription_invoice(*lines, **{"created": NOW} | fields)
    resolve = key.get if key is NO_KEY else key.__getitem__
    return interpret(read_event(json.dumps(event)), EventScope(livemode=False), resolve)


def granted(*lines: Line, **arguments: Any) -> int | None:
    interpretation = outcome(*lines, **arguments)
    assert isinstance(interpretation, Facts), interpretation
    return next(fact.credits for fact in interpretation.facts if isinstance(fact, Sale))


every_version = pytest.mark.parametrize("version", VERSIONS)


# Invoices that begin a period, whatever their reason


@every_version
def test_upgrade_from_monthly_to_yearly_grants_what_was_paid(version: str) -> None:
    """Unused time was granted when it was paid."""
    fields = {"version": version, "reason": "subscription_update"}
    assert granted(UNUSED, YEARLY_LINE, credits=1200, **fields) == 1200 * 9100 // 9600
    assert granted(UNUSED, YEARLY_LINE, **fields) == 1200 * 9100 // 9600


@every_version
def test_upgrade_from_a_free_plan_grants_all_credits(version: str) -> None:
    free = Line(FREE, 0, NOW, MONTH, proration=True)
    assert granted(free, MONTHLY_LINE, reason="subscription_update", credits=100, version=version) == 100


@every_version
def test_trial_that_ends_early_grants_the_first_period(version: str) -> None:
    assert granted(MONTHLY_LINE, reason="subscription_update", credits=100, version=version) == 100


@pytest.mark.parametrize("reason", ["manual", "quote_accept", "a_new_reason"])
def test_period_counts_whatever_the_billing_reason(reason: str) -> None:
    assert granted(MONTHLY_LINE, reason=reason, credits=100) == 100


@every_version
def test_worked_example_of_the_contract(version: str) -> None:
    """Monthly to yearly at once, back, and yearly again from the balance."""
    fields = {"version": version, "reason": "subscription_update"}
    unused_year = Line(ANNUAL, -9600, NOW, YEAR, proration=True)
    unused_month = replace(UNUSED, amount=-1000)
    assert granted(unused_month, YEARLY_LINE, credits=1200, **fields) == 1075
    back = outcome(unused_year, MONTHLY_LINE, credits=100, ending_balance=-8600, **fields)
    assert back == Ignored("paid_by_credit")
    again = outcome(unused_month, YEARLY_LINE, credits=1200, balance=-8600, **fields)
    assert again == Ignored("paid_by_credit")


# Invoices that begin no period


@every_version
def test_usage_in_arrears_grants_nothing(version: str) -> None:
    """700 units with 50 credits on their price are usage, billed after its period."""
    usage = Line(USAGE, 35_000, NOW - 30 * DAY, NOW, quantity=700)
    assert outcome(usage, version=version) == Ignored("usage")
    assert granted(MONTHLY_LINE, usage, version=version) == 100


@every_version
def test_usage_of_a_period_that_goes_on_grants_nothing(version: str) -> None:
    usage = Line(USAGE, 35_000, NOW, MONTH, quantity=700)
    assert outcome(usage, reason="subscription_update", version=version) == Ignored("usage")


@every_version
def test_usage_over_a_threshold_grants_nothing(version: str) -> None:
    fields = {"reason": "subscription_threshold", "version": version}
    assert outcome(Line(USAGE, 35_000, NOW, MONTH), credits=100, **fields) == Ignored("usage")


@every_version
def test_trial_beside_a_setup_fee_grants_nothing(version: str) -> None:
    assert outcome(FEE, TRIAL, reason="subscription_create", credits=100, version=version) == Ignored("trial")


@every_version
def test_free_plan_grants_nothing(version: str) -> None:
    assert outcome(Line(FREE, 0, NOW, MONTH), credits=100, version=version) == Ignored("free_period")


@every_version
def test_seat_change_grants_nothing(version: str) -> None:
    """Counting the quantities of both lines would mint credits."""
    lines = [replace(UNUSED, amount=-2000, quantity=2), replace(UNUSED, amount=3000, quantity=3)]
    assert outcome(*lines, reason="subscription_update", version=version) == Ignored("proration")


@every_version
def test_invoice_of_fees_alone_grants_nothing(version: str) -> None:
    assert outcome(FEE, credits=100, version=version) == Ignored("no_credits")


@every_version
def test_line_of_another_subscription_begins_no_period(version: str) -> None:
    other = replace(MONTHLY_LINE, subscription="sub_other")
    assert outcome(other, credits=100, version=version) == Ignored("no_credits")


@every_version
def test_invoice_without_a_subscription_needs_own_credits(version: str) -> None:
    event = subscription_invoice(FEE, created=NOW, version=version)
    source = event["data"]["object"]
    source |= {"subscription": None} if version == OLDEST else {"parent": None}
    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False))
    assert interpretation == Ignored("no_credits", "STRIPE_API_KEY")


# Money


@pytest.mark.parametrize(
    ("paid_by", "expected"),
    [
        ({"balance": -400}, 60),
        ({"balance": -999}, 0),
        ({"balance": 300}, 100),
        ({"credit_note": 500}, 50),
        ({"balance": -400, "credit_note": 600}, 0),
        ({"ending_balance": 30, "balance": 30}, 100),
    ],
    ids=str,
)
@every_version
def test_customer_balance_and_credit_notes_grant_nothing(version: str, paid_by: dict[str, int], expected: int) -> None:
    interpretation = outcome(MONTHLY_LINE, credits=100, version=version, **paid_by)
    sold = [fact.credits for fact in interpretation.facts if isinstance(fact, Sale)] if expected else interpretation
    assert sold == ([expected] if expected else Ignored("paid_by_credit"))


@pytest.mark.parametrize("percent", [0, 7, 20])
@every_version
def test_exclusive_tax_changes_no_credits(version: str, percent: int) -> None:
    line = MONTHLY_LINE.with_tax(percent)
    assert granted(line, credits=100, version=version) == 100
    half = line.total() // 2
    assert granted(line, credits=100, version=version, balance=-half) == 50


@every_version
def test_coupon_leaves_all_credits(version: str) -> None:
    assert granted(replace(MONTHLY_LINE, discount=900), credits=100, version=version) == 100


@pytest.mark.parametrize("reason", ["subscription_create", "subscription_cycle"])
@every_version
def test_coupon_of_100_percent_leaves_all_credits(version: str, reason: str) -> None:
    assert granted(replace(MONTHLY_LINE, discount=1000), FEE, credits=100, version=version, reason=reason) == 100


def test_change_to_a_plan_that_a_coupon_makes_free_is_ignored() -> None:
    free = replace(MONTHLY_LINE, discount=1000)
    assert outcome(free, credits=100, reason="subscription_update") == Ignored("free_period")


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_billing_credits_grant_nothing(version: str) -> None:
    """A credit grant pays a part of the line without money."""
    assert granted(replace(MONTHLY_LINE, billing_credits=250), credits=100, version=version) == 75


@every_version
def test_money_pays_fees_before_credits(version: str) -> None:
    assert granted(MONTHLY_LINE, FEE, credits=100, version=version) == 100
    assert granted(MONTHLY_LINE, FEE, credits=100, version=version, balance=-700) == 30


@every_version
def test_negative_invoice_item_is_not_money(version: str) -> None:
    discount = replace(FEE, amount=-700)
    assert granted(MONTHLY_LINE, discount, credits=100, version=version) == 30


def test_small_debt_counts_unless_the_invoice_credits_money() -> None:
    """Else a customer could switch between two plans of almost the same price without paying."""
    small = replace(MONTHLY_LINE, discount=970)
    assert granted(small, credits=100, ending_balance=30) == 100
    switched = [replace(UNUSED, amount=-970), MONTHLY_LINE]
    assert outcome(*switched, credits=100, ending_balance=30) == Ignored("paid_by_credit")


@pytest.mark.parametrize("amount_paid", [0, 1000])
def test_payment_outside_stripe_counts_as_money(amount_paid: int) -> None:
    """Whether `amount_paid` contains it depends on the API version."""
    fields = {"version": OLDEST, "paid_out_of_band": True, "amount_paid": amount_paid}
    assert granted(MONTHLY_LINE, credits=100, **fields) == 100


def test_invoice_with_its_own_credits_grants_them_whatever_was_paid() -> None:
    fields = {"metadata": {"credits": "30"}, "balance": -1000}
    assert granted(MONTHLY_LINE, credits=100, **fields) == 30


def test_share_of_less_than_a_credit_is_ignored() -> None:
    assert outcome(MONTHLY_LINE, credits=100, balance=-991) == Ignored("paid_by_credit")


# Credits on prices, and long invoices


@every_version
def test_seats_multiply_the_credits_of_a_price(version: str) -> None:
    seats = replace(MONTHLY_LINE, amount=3000, quantity=3)
    assert granted(seats, Line(ADD_ON, 3000, NOW, MONTH), version=version) == 300


@every_version
def test_metadata_counts_once_for_several_items(version: str) -> None:
    assert granted(MONTHLY_LINE, Line(ADD_ON, 3000, NOW, MONTH), credits=100, version=version) == 100


@every_version
def test_lines_after_the_tenth_are_fetched(version: str) -> None:
    lines = [replace(UNUSED, amount=-10)] * 10 + [MONTHLY_LINE]
    event = subscription_invoice(*lines, created=NOW, version=version)
    fetched = {InvoiceLines(event["data"]["object"]["id"]): shapes_of(lines, version)}
    assert granted(*lines, credits=100, version=version, key={**KEY, **fetched}) == 90
    parked = outcome(*lines, credits=100, version=version, key=NO_KEY)
    assert parked == Unresolvable("missing_api_key", event["data"]["object"]["id"])


def test_long_invoice_of_another_product_is_ignored_without_a_key() -> None:
    lines = [FEE] * 11
    assert outcome(*lines, user_id=None, key=NO_KEY) == Ignored("no_credits")


# Parts of a period


@pytest.mark.parametrize("flagged", [False, True], ids=["regular", "proration"])
@every_version
def test_start_before_an_anchor_grants_its_part(version: str, flagged: bool) -> None:  # noqa: FBT001
    """Stripe does not document whether it marks the line as a proration."""
    part = Line(MONTHLY, 323, NOW, NOW + 10 * DAY, proration=flagged)
    fields = {"reason": "subscription_create", "version": version}
    assert granted(part, credits=100, **fields) == 32
    assert granted(part, **fields) == 32


@pytest.mark.parametrize("flagged", [False, True], ids=["regular", "proration"])
def test_start_before_an_anchor_needs_the_price(flagged: bool) -> None:  # noqa: FBT001
    """Newer API versions leave it out, and their line has a unit amount of its own."""
    part = Line(MONTHLY, 323, NOW, NOW + 10 * DAY, proration=flagged)
    fields = {"reason": "subscription_create", "credits": 100, "key": NO_KEY}
    parked = outcome(part, **fields)
    assert isinstance(parked, Unresolvable)
    assert parked.reason == "missing_api_key"
    assert granted(part, version=OLDEST, **fields) == 32


def test_part_of_a_period_with_a_coupon_grants_its_part() -> None:
    for discount in (100, 323):
        part = Line(MONTHLY, 323, NOW, NOW + 10 * DAY, discount=discount)
        assert granted(part, credits=100, reason="subscription_create") == 32


def test_part_of_a_tiered_period_is_measured_by_time() -> None:
    tiered = MONTHLY.price() | {"billing_scheme": "tiered", "unit_amount": None, "unit_amount_decimal": None}
    part = Line(MONTHLY, 700, NOW, NOW + 10 * DAY)
    assert granted(part, credits=100, key=key_for(tiered)) == 100 * 10 // 31


def test_price_per_package_is_a_whole_period() -> None:
    packages = MONTHLY.price() | {"transform_quantity": {"divide_by": 10, "round": "up"}}
    line = Line(MONTHLY, 3000, NOW, NOW + 7 * DAY, quantity=25)
    assert granted(line, credits=100, key=key_for(packages)) == 100


def test_whole_period_needs_no_price() -> None:
    assert granted(MONTHLY_LINE, credits=100, key=NO_KEY) == 100
    assert granted(YEARLY_LINE, credits=1200, key=NO_KEY) == 1200


def test_renewal_of_a_whole_period_needs_no_lookup() -> None:
    assert granted(MONTHLY_LINE, credits=100, key={}) == 100


def test_start_of_a_usual_length_is_compared_with_the_price() -> None:
    """A month of a yearly plan, before its anchor. Without a key it counts as a whole period."""
    start = replace(YEARLY_LINE, amount=800, end=MONTH)
    fields = {"credits": 1200, "reason": "subscription_create"}
    assert granted(start, **fields) == 100
    assert granted(start, key=NO_KEY, **fields) == 1200


def test_unusual_period_needs_the_price() -> None:
    week = replace(MONTHLY_LINE, end=NOW + 7 * DAY)
    weekly = MONTHLY.price()
    weekly["recurring"] |= {"interval": "week"}
    assert granted(week, credits=100, key=key_for(weekly)) == 100
    assert outcome(week, credits=100, key=NO_KEY).reason == "missing_api_key"  # type: ignore[union-attr]


# Values that cannot be settled


@pytest.mark.parametrize("credits", ["ten", "-1", "1000000001"])
def test_malformed_credits_of_a_period_are_invalid(credits: str) -> None:  # noqa: A002
    parked = outcome(MONTHLY_LINE, credits=credits)
    assert isinstance(parked, Unresolvable)
    assert parked.reason == "invalid_credits"


def test_zero_credits_are_ignored() -> None:
    assert outcome(MONTHLY_LINE, credits=0) == Ignored("zero_credits")


@pytest.mark.parametrize(
    "fields",
    [
        {"starting_balance": None},
        {"ending_balance": "0"},
        {"total": None},
        {"created": None},
        {"lines": {"data": [None]}},
        {"lines": {"data": [{"amount": 1}]}},
        {"lines": {"data": [{"amount": 1, "parent": {"type": []}}]}},
        {"lines": {"data": [MONTHLY_LINE.shape(NEWEST, 1) | {"parent": {"type": []}}]}},
        {"lines": None},
    ],
    ids=str,
)
def test_invoice_of_an_unknown_shape_is_unreadable(fields: dict[str, Any]) -> None:
    event = subscription_invoice(MONTHLY_LINE, created=NOW, credits=100)
    event["data"]["object"] |= fields
    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False))
    assert interpretation == Unresolvable("unreadable")


@pytest.mark.parametrize("credits", [100, None])
def test_line_of_an_unknown_kind_is_unreadable(credits: int | None) -> None:  # noqa: A002
    """A new kind of line may begin a period. It matters only if the subscription names credits."""
    event = subscription_invoice(MONTHLY_LINE, created=NOW, credits=credits)
    [line] = event["data"]["object"]["lines"]["data"]
    line["parent"] = {"type": "license_fee_details", "license_fee_details": {"license_fee": "lf_1"}}
    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False))
    assert interpretation == (Unresolvable("unreadable") if credits else Ignored("no_credits"))


def test_user_of_the_subscription_owns_the_sale() -> None:
    interpretation = outcome(MONTHLY_LINE, credits=100, version=NEWEST)
    assert isinstance(interpretation, Facts)
    assert [fact.user_id for fact in interpretation.facts if isinstance(fact, Sale)] == [USER_ID]


# Recorded invoices


RECORDED_PLAN = "price_1RMliwK4mTq9ZwLxJSAX3kAu"
RECORDED_KEY = key_for(
    replace(MONTHLY, price_id=RECORDED_PLAN).price(),
    replace(USAGE, price_id="price_1RMliwK4mTq9ZwLxUsage000").price(),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("upgrade_to_yearly", 1137),
        ("start_before_anchor", 32),
        ("taxes_and_discount", 100),
        ("trial_with_setup_fee", Ignored("trial")),
        ("usage_in_arrears", Ignored("usage")),
        ("paid_by_balance", Ignored("paid_by_credit")),
    ],
)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_recorded_invoice_grants_what_was_paid(version: str, name: str, expected: int | Ignored) -> None:
    event = read_event(json.dumps(recorded(f"invoice.paid.{name}", version)))
    interpretation = interpret(event, EventScope(livemode=False), RECORDED_KEY.get)
    facts = interpretation.facts if isinstance(interpretation, Facts) else ()
    sold = [fact.credits for fact in facts if isinstance(fact, Sale)]
    assert (sold or interpretation) == ([expected] if isinstance(expected, int) else expected)
