"""What a subscription's invoice grants for the periods that it begins. Pure functions, no I/O.

Each line decides by itself whether it begins a period. The reason for the invoice and its sums do not: a change from
monthly to yearly bills a whole new period beside the unused time of the old one.
https://docs.stripe.com/billing/subscriptions/prorations
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Any

from webhook.events.billing_periods import WHOLE, is_usual, part_of_period
from webhook.events.facts import Ignored, Unresolvable
from webhook.events.fields import JSONObject, UnexpectedShapeError, instant, required_id
from webhook.events.invoice_lines import InvoiceLine, read_lines, subscription_details_of, subscription_of
from webhook.events.line_items import UNKNOWN, credits_of_lines, credits_per_unit_of, is_whole_number, quantity_of
from webhook.events.lookups import InvoiceLines, Price, ReadablePrice, Resolve, no_lookups
from webhook.events.sales import Grant
from webhook.events.shares import paid_share


@dataclass(frozen=True)
class Period:
    """A line that begins a period."""

    line: InvoiceLine
    price: JSONObject | None
    """The price, if it is known."""

    @property
    def part(self) -> Fraction | None:
        """The part of the period that the line bills; ``None`` if it takes the price to know."""
        return part_of_period(self.line, self.price)

    @property
    def is_metered(self) -> bool:
        """Whether the price is known to bill usage. An event has no prices since 2025-03-31.basil."""
        recurring = (self.price or {}).get("recurring")
        return isinstance(recurring, dict) and recurring.get("usage_type") == "metered"


def period_grant(source: JSONObject, grant: Grant, resolve: Resolve) -> Grant | Ignored | Unresolvable:
    """Return the grant with the credits of the periods that the invoice begins, as far as money paid for them.

    ``grant`` has the credits of the subscription's metadata, which count once for the invoice, or ``None``: then the
    prices of the lines count.
    """
    if not (subscription_of(source) or subscription_details_of(source)):
        return Ignored("no_credits")
    if source.get("billing_reason") == "subscription_threshold":
        return Ignored("usage")  # https://docs.stripe.com/billing/subscriptions/usage-based/thresholds
    listed, is_complete = _listed_lines(source, resolve)
    if not is_complete:
        return _incomplete(source, grant, listed)
    lines = read_lines(listed, subscription_of(source))
    if grant.credits is not None and any(line.amount > 0 and not line.is_known_kind for line in lines):
        raise UnexpectedShapeError("parent")
    periods = _periods(source, lines, grant, resolve)
    others = [line for line in lines if not any(line is period.line for period in periods)]
    if not periods:
        return Ignored(_reason_without_period(others))
    return _granted(source, grant, periods, others, resolve)


def _listed_lines(source: JSONObject, resolve: Resolve) -> tuple[list[Any], bool]:
    """Return the line items, and whether they are complete. An event has the first ten; the rest needs an API key."""
    lines = source.get("lines")
    if not isinstance(lines, dict) or not isinstance(lines.get("data"), list):
        raise UnexpectedShapeError("lines")
    if not lines.get("has_more"):
        return lines["data"], True
    answer: list[Any] | None = resolve(InvoiceLines(required_id(source, "id")))
    return (lines["data"], False) if answer is None else (answer, True)


def _incomplete(source: JSONObject, grant: Grant, listed: list[Any]) -> Ignored | Unresolvable:
    """Return the outcome if only the first ten lines are known: which ones follow decides about all of them."""
    sold = credits_of_lines(listed, no_lookups)
    if grant.credits is None and grant.user_id is None and (sold is None or sold is UNKNOWN):
        return Ignored("no_credits")
    return Unresolvable("missing_api_key", required_id(source, "id"))


def _periods(source: JSONObject, lines: Sequence[InvoiceLine], grant: Grant, resolve: Resolve) -> list[Period]:
    """Return the lines that begin a period."""
    candidates = [line for line in lines if _may_begin_period(source, line)]
    periods = [Period(line, _price(source, line, grant, resolve)) for line in candidates]
    return [period for period in periods if not period.is_metered]


def _may_begin_period(source: JSONObject, line: InvoiceLine) -> bool:
    """Return whether the line begins a period, unless its price turns out to be metered.

    Stripe does not document how it marks the first period before a billing anchor: as a regular line of a smaller
    amount, or as a proration. Both count.
    """
    if line.amount <= 0 or line.end <= instant(source, "created"):
        return False
    return _is_partial_start(source, line) if line.is_proration else line.is_subscription_item


def _is_partial_start(source: JSONObject, line: InvoiceLine) -> bool:
    """Return whether the line is the first period of a new subscription: there is nothing yet to prorate."""
    is_new = source.get("billing_reason") == "subscription_create"
    return is_new and line.is_of_subscription and line.price_id is not None


def _price(source: JSONObject, line: InvoiceLine, grant: Grant, resolve: Resolve) -> JSONObject | None:
    """Return the line's price; ``None`` if it is not known.

    If the credits are in the metadata, it is looked up only where the line may bill a part of a period. So renewals do
    not depend on Stripe's API.
    """
    if line.own_price is not None or line.price_id is None:
        return line.own_price
    is_start = source.get("billing_reason") == "subscription_create"
    if grant.credits is None:
        price = resolve(Price(line.price_id))
    elif is_start or line.is_proration or not is_usual(line.start, line.end):
        price = resolve(ReadablePrice(line.price_id))
    else:
        price = None
    return price if isinstance(price, dict) else None


def _reason_without_period(lines: Sequence[InvoiceLine]) -> str:
    """Return the reason to ignore an invoice that begins no period."""
    items = [line for line in lines if line.is_subscription_item and not line.is_proration]
    if any(line.amount > 0 for line in items):
        return "usage"
    if any(line.is_proration for line in lines):
        return "proration"
    if not items:
        return "no_credits"
    return "trial" if any(_is_trial(line) for line in items) else "free_period"


def _is_trial(line: InvoiceLine) -> bool:
    """Return whether a line of 0 is a trial. Only older API versions show the price, which is not 0 for a trial."""
    price = line.own_price
    if price is not None:
        return bool(price.get("unit_amount")) or price.get("billing_scheme") == "tiered"
    return "trial" in str(line.source.get("description")).casefold()


def _granted(
    source: JSONObject, grant: Grant, periods: Sequence[Period], others: Sequence[InvoiceLine], resolve: Resolve
) -> Grant | Ignored | Unresolvable:
    lines = [period.line for period in periods]
    if grant.credits is None:
        sold = _credits_of_prices(periods, resolve)
        if sold is None or (sold is UNKNOWN and grant.user_id is None):
            return Ignored("no_credits")
    else:
        sold = grant.credit_count
    if any(period.part is None for period in periods):
        return Unresolvable("missing_api_key", required_id(source, "id"))
    share = paid_share(source, lines, others)
    if share == 0:
        return Ignored("paid_by_credit" if sum(line.net for line in lines) > 0 else "free_period")
    return _with_share(grant, sold, periods, share)


def _with_share(grant: Grant, sold: Any, periods: Sequence[Period], share: Fraction) -> Grant | Ignored:
    is_priced = grant.credits is None
    if not isinstance(sold, Fraction | int):
        return grant if not is_priced else replace(grant, credits=None if sold is UNKNOWN else sold, priced=True)
    if sold == 0:
        return Ignored("zero_credits")
    number = floor(sold * share * (WHOLE if is_priced else _part_of_all(periods)))
    return replace(grant, credits=number, priced=is_priced) if number else Ignored("paid_by_credit")


def _credits_of_prices(periods: Sequence[Period], resolve: Resolve) -> Any:
    """Return the sum of credits times quantity times part of the period over the lines, exactly.

    Returns ``None`` if no price sells credits, :data:`UNKNOWN` without an API key, and a value that is not a whole
    number as it is.
    """
    known = [(period, credits_per_unit_of(period.line.source, resolve)) for period in periods]
    selling = [(period, credits_per_unit) for period, credits_per_unit in known if credits_per_unit is not None]
    numbers = [(period, each) for period, each in selling if each is not UNKNOWN]
    for _, credits_per_unit in numbers:
        if not is_whole_number(credits_per_unit):
            return credits_per_unit
    if not numbers:
        return UNKNOWN if selling else None
    return sum(
        (int(each[:20]) * quantity_of(period.line.source) * (period.part or WHOLE) for period, each in numbers),
        Fraction(0),
    )


def _part_of_all(periods: Sequence[Period]) -> Fraction:
    """Return the part of their periods that the lines bill together: their amounts by their full prices."""
    full = sum(period.line.amount / (period.part or WHOLE) for period in periods)
    return sum(period.line.amount for period in periods) / Fraction(full)
