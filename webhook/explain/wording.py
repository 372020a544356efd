"""Money, credits and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

_ZERO_DECIMAL = {
    *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"),
}
_THREE_DECIMAL = {"bhd", "jod", "kwd", "omr", "tnd"}
"""Currencies by their minor units, as Stripe's API has them: https://docs.stripe.com/currencies."""


def decimals(currency: str) -> int:
    """Return the digits after the decimal point in a currency."""
    if currency in _ZERO_DECIMAL:
        return 0
    return 3 if currency in _THREE_DECIMAL else 2


def money(amount: int | None, currency: str | None) -> str:
    """Return an amount in minor units, such as ``10.00 USD``; ``-`` if it is not known."""
    if amount is None or currency is None:
        return "-"
    return f"{Decimal(amount).scaleb(-decimals(currency)):,f} {currency.upper()}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 credit`` or ``100 credits``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment(at: datetime) -> str:
    """Return a time in UTC, such as ``2026-11-24 09:30 UTC``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def day(at: datetime) -> str:
    """Return the day in UTC, such as ``24 November 2026``."""
    local = at.astimezone(UTC)
    return f"{local.day} {local:%B %Y}"


def weekday(at: datetime) -> str:
    """Return the day in UTC with its name, such as ``Tuesday, 2026-11-24``: customers name the day of a payment."""
    return f"{at.astimezone(UTC):%A, %Y-%m-%d}"


def age(duration: timedelta) -> str:
    """Return a duration in its two largest units, such as ``3d 4h``."""
    seconds = max(duration, timedelta()) // timedelta(seconds=1)
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    first = next((index for index, (size, _) in enumerate(units) if seconds >= size), len(units) - 1)
    words = []
    for size, unit in units[first : first + 2]:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)
