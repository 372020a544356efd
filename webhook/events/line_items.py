"""Line items to credits: what the prices of a session or an invoice sell. Pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from webhook.events.fields import JSONObject, UnexpectedShapeError, metadata, optional_id
from webhook.events.lookups import Price, Resolve

UNKNOWN = object()
"""The credits depend on a price, and there is no API key to look it up."""


def credits_of_lines(lines: Iterable[Any], resolve: Resolve) -> Any:
    """Return the credits that the lines sell: the sum of credits times quantity.

    Returns ``None`` if no line sells credits, and :data:`UNKNOWN` if that depends on a price that cannot be looked up.
    A value that is not a whole number is returned as it is. A line with a negative amount sells nothing.
    """
    total: int | None = None
    is_known = True
    for line in lines:
        if not isinstance(line, dict):
            raise UnexpectedShapeError("lines")
        credits_per_unit = None if _is_credited(line) else credits_per_unit_of(line, resolve)
        if credits_per_unit is None or credits_per_unit is UNKNOWN:
            is_known &= credits_per_unit is None
            continue
        if not is_whole_number(credits_per_unit):
            return credits_per_unit
        total = (total or 0) + int(credits_per_unit[:20]) * quantity_of(line)
    return total if is_known or total is not None else UNKNOWN


def is_whole_number(credits_per_unit: Any) -> bool:
    """Return whether the metadata value is a whole number, 0 or more."""
    return isinstance(credits_per_unit, str) and credits_per_unit.isascii() and credits_per_unit.isdigit()


def quantity_of(line: JSONObject) -> int:
    """Return the line's quantity, 1 if it has none."""
    quantity = line.get("quantity")
    if quantity is None:
        return 1
    if type(quantity) is int and quantity >= 0:
        return quantity
    raise UnexpectedShapeError("quantity")


def credits_per_unit_of(line: JSONObject, resolve: Resolve) -> Any:
    """Return ``metadata.credits`` of the line's price, else of its product; :data:`UNKNOWN` without an API key.

    A session's line contains its price. That price is looked up only if it names no credits.
    """
    in_line = _metadata_credits(line.get("price"))
    if in_line is not None:
        return in_line
    price_id = price_id_of(line)
    if price_id is None:
        return None
    price = resolve(Price(price_id))
    if not isinstance(price, dict):
        return UNKNOWN
    in_price = _metadata_credits(price)
    return _metadata_credits(price.get("product")) if in_price is None else in_price


def price_id_of(line: JSONObject) -> str | None:
    """Return the id of the line's price. Since 2025-03-31.basil, that of an invoice's line is in ``pricing``."""
    pricing = line.get("pricing")
    details = pricing.get("price_details") if isinstance(pricing, dict) else None
    return optional_id(details, "price") if isinstance(details, dict) else optional_id(line, "price")


def _is_credited(line: JSONObject) -> bool:
    amount = line.get("amount_total")
    return type(amount) is int and amount < 0


def _metadata_credits(source: Any) -> Any:
    return metadata(source).get("credits") if isinstance(source, dict) else None
