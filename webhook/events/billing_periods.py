"""The part of a billing period that an invoice line covers. Pure functions, no I/O.

A subscription with a billing cycle anchor may start with a part of a period:
https://docs.stripe.com/billing/subscriptions/billing-cycle.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from webhook.events.fields import JSONObject
from webhook.events.invoice_lines import InvoiceLine
from webhook.events.line_items import quantity_of

WHOLE = Fraction(1)
_DAY = 86_400
USUAL_MONTHS = (1, 3, 6, 12, 24, 36)
USUAL_DAYS = (30, 31, 365, 366)
"""The lengths of a period that count as whole if the price is not known."""
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?", re.ASCII)
_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}
_LONGEST = 1200
"""The longest interval that is read, in its own unit. Stripe allows three years."""


def part_of_period(line: InvoiceLine, price: JSONObject | None) -> Fraction | None:
    """Return the part of its period that the line bills, above 0 and at most 1; ``None`` if it takes the price to know.

    With the price, the line's amount is compared with the full price. If that is not one number (tiers, another
    currency), the length of the line's period is compared with the price's interval.

    Without the price, a period of a usual length counts as whole. The ``unit_amount_decimal`` of the line's
    ``pricing`` does not have the price: it is the amount of this line, such as 0 in a trial, and not the price's.
    """
    if price is None:
        return WHOLE if not line.is_proration and is_usual(line.start, line.end) else None
    full = full_price(line, price)
    if full is None:
        return _part_by_time(line, price)
    # Stripe rounds a unit amount with decimals to whole minor units.
    return WHOLE if line.amount > full - 1 else Fraction(line.amount) / full


def full_price(line: InvoiceLine, price: JSONObject) -> Fraction | None:
    """Return the price of the whole period in minor units; ``None`` if the price does not have one unit amount.

    https://docs.stripe.com/api/prices/object
    """
    unit_amount = _unit_amount(price)
    is_other_currency = price.get("currency") != line.source.get("currency")
    if unit_amount is None or is_other_currency or price.get("billing_scheme") == "tiered":
        return None
    return unit_amount * _packages(quantity_of(line.source), price.get("transform_quantity"))


def is_usual(start: int, end: int) -> bool:
    """Return whether the period, from ``start`` to ``end`` in seconds since 1970, has a usual length.

    That is a number of calendar months, or of days that are about a month or a year. So a start that lacks a day of
    its first month counts as whole.
    """
    if end - start in [days * _DAY for days in USUAL_DAYS]:
        return True
    first, last = _moment(start), _moment(end)
    months = (last.year - first.year) * 12 + last.month - first.month
    return months in USUAL_MONTHS and first.time() == last.time() and _is_same_day(first, last)


def _is_same_day(first: datetime, last: datetime) -> bool:
    """Return whether both are the same day of the month. A day that a month lacks is its last day."""
    return (
        first.day == last.day
        or (_is_last_day(last) and first.day > last.day)
        or (_is_last_day(first) and last.day > first.day)
    )


def _is_last_day(moment: datetime) -> bool:
    return moment.day == monthrange(moment.year, moment.month)[1]


def _part_by_time(line: InvoiceLine, price: JSONObject) -> Fraction:
    """Return the line's share of one interval of the price; all of it if the price has no interval."""
    end = _interval_end(line.start, price.get("recurring"))
    if end is None or line.end >= end or line.end <= line.start:
        return WHOLE
    return Fraction(line.end - line.start, end - line.start)


def _interval_end(start: int, recurring: Any) -> int | None:
    """Return when a whole interval that begins at ``start`` ends, in seconds since 1970."""
    match recurring:
        case {"interval": "day" | "week" as unit, "interval_count": int(count)} if 0 < count <= _LONGEST:
            return int((_moment(start) + timedelta(days=_DAYS[unit] * count)).timestamp())
        case {"interval": "month" | "year" as unit, "interval_count": int(count)} if 0 < count <= _LONGEST:
            return int(_add_months(_moment(start), _MONTHS[unit] * count).timestamp())
        case _:
            return None


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _unit_amount(price: JSONObject) -> Fraction | None:
    for value in (price.get("unit_amount_decimal"), price.get("unit_amount")):
        if type(value) is int or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
            return Fraction(value)
    return None


def _packages(quantity: int, transform: Any) -> int:
    """Return the number of units that are billed: https://docs.stripe.com/api/prices/object, ``transform_quantity``."""
    match transform:
        case {"divide_by": int(size), "round": "up"} if size > 0:
            return -(-quantity // size)
        case {"divide_by": int(size)} if size > 0:
            return quantity // size
        case _:
            return quantity
