"""Typed reads of Stripe's JSON objects.

Each raises :class:`UnexpectedShapeError` if the value does not have the shape that Stripe documents.
"""

from __future__ import annotations

import re
from typing import Any

JSONObject = dict[str, Any]

IDENTIFIER = re.compile(r"[\x21-\x7e]{1,255}")
"""Stripe's ids are printable ASCII, at most 255 characters: https://docs.stripe.com/upgrades."""

CURRENCY = re.compile(r"[a-z]{3}")
"""Stripe's three-letter code, in lower case. The ledger accepts no other (sql/*_transactions.sql)."""

LARGEST_AMOUNT = 2**53 - 1

LATEST = 2**36
"""The latest time that is read, in seconds since 1970: the year 4147. Later ones do not fit into a ``datetime``."""


class UnexpectedShapeError(Exception):
    """A field has a shape that this version cannot read. The message names the field, never its value."""


def optional_id(source: JSONObject, key: str) -> str | None:
    """Return the id in ``key``, or that of the expanded object there; ``None`` if there is none."""
    value = source.get(key)
    if isinstance(value, dict):
        value = value.get("id")
    if value is None:
        return None
    if isinstance(value, str) and IDENTIFIER.fullmatch(value):
        return value
    raise UnexpectedShapeError(key)


def required_id(source: JSONObject, key: str) -> str:
    """Return the id in ``key``, or that of the expanded object there."""
    value = optional_id(source, key)
    if value is None:
        raise UnexpectedShapeError(key)
    return value


def amount(source: JSONObject, key: str) -> int:
    """Return the amount in ``key``, 0 or more, in minor units."""
    value = source.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_AMOUNT:
        return value
    raise UnexpectedShapeError(key)


def signed_amount(source: JSONObject, key: str) -> int:
    """Return the amount in ``key``, in minor units. It is below 0 if money is credited."""
    value = source.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_AMOUNT:
        return value
    raise UnexpectedShapeError(key)


def instant(source: JSONObject, key: str) -> int:
    """Return the time in ``key``, in seconds since 1970."""
    value = source.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LATEST:
        return value
    raise UnexpectedShapeError(key)


def word(source: JSONObject, key: str) -> str:
    """Return the status or mode in ``key``."""
    value = source.get(key)
    if isinstance(value, str) and IDENTIFIER.fullmatch(value):
        return value
    raise UnexpectedShapeError(key)


def currency(source: JSONObject) -> str:
    """Return the object's currency: https://docs.stripe.com/currencies."""
    value = source.get("currency")
    if isinstance(value, str) and CURRENCY.fullmatch(value):
        return value
    raise UnexpectedShapeError("currency")


def metadata(source: JSONObject) -> JSONObject:
    """Return the object's metadata, empty if it has none."""
    value = source.get("metadata")
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise UnexpectedShapeError("metadata")
