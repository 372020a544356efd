"""Line items to credits: what the prices of a session or an invoice sell. Pure functions, no I/O of their own."""

from __future__ import annotations

from typing import Any

from webhook.events.fields import JSONObject, UnexpectedShapeError, metadata, optional_id
from webhook.events.lookups import Price, Resolve

UNKNOWN = object()
"""A price would have to be looked up, and there is nobody to ask."""


def credits_of_lines(lines: list[JSONObject], resolve: Resolve) -> Any:
    """Return the credits that the lines sell together, or the first of them that is no whole number, as it stands.

    ``None`` where no line sells any, :data:`UNKNOWN` where that cannot be told. Credits times
    quantity; prorations and negative amounts sell nothing: a seat change comes as one line back and one line forth, and
    counting their quantities would mint.
    """
    total: int | None = None
    is_known = True
    for line in lines:
        if not isinstance(line, dict):
            raise UnexpectedShapeError("lines")
        if _is_correction(line):
            continue
        named = _credits_of_price(line, resolve)
        if named is None or named is UNKNOWN:
            is_known &= named is None
            continue
        if not (isinstance(named, str) and named.isascii() and named.isdigit()):
            return named
        total = (total or 0) + int(named[:20]) * _quantity(line)
    return total if is_known or total is not None else UNKNOWN


def _is_correction(line: JSONObject) -> bool:
    amounts = (line.get("amount"), line.get("amount_total"))
    parent = line.get("parent")
    details = parent.values() if isinstance(parent, dict) else ()
    prorations = [detail.get("proration") for detail in details if isinstance(detail, dict)]
    return line.get("proration") is True or True in prorations or any(type(a) is int and a < 0 for a in amounts)


def _quantity(line: JSONObject) -> int:
    quantity = line.get("quantity")
    if quantity is None:
        return 1
    if type(quantity) is int and quantity >= 0:
        return quantity
    raise UnexpectedShapeError("quantity")


def _credits_of_price(line: JSONObject, resolve: Resolve) -> Any:
    """Return what the line's price says, else its product."""
    named = _named_in(line.get("price"))
    if named is not None:
        return named
    price_id = _price_id(line)
    if price_id is None:
        return None
    price = resolve(Price(price_id))
    if not isinstance(price, dict):
        return UNKNOWN
    named = _named_in(price)
    return _named_in(price.get("product")) if named is None else named


def _price_id(line: JSONObject) -> str | None:
    """Return the id of the line's price; an invoice's has moved into ``pricing`` with 2025-03-31.basil."""
    pricing = line.get("pricing")
    details = pricing.get("price_details") if isinstance(pricing, dict) else None
    return optional_id(details, "price") if isinstance(details, dict) else optional_id(line, "price")


def _named_in(source: Any) -> Any:
    return metadata(source).get("credits") if isinstance(source, dict) else None
