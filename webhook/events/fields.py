"""Typed reads of Stripe's JSON objects: a value of another shape than Stripe documents raises :class:`UnexpectedShapeError`."""

from __future__ import annotations

import re
from typing import Any

JSONObject = dict[str, Any]

IDENTIFIER = re.compile(r"[\x21-\x7e]{1,255}")
"""Stripe's ids are printable ASCII, at most 255 characters: https://docs.stripe.com/upgrades."""

LARGEST_AMOUNT = 2**53 - 1


class UnexpectedShapeError(Exception):
    """A field has a shape that this version does not understand; the message names the field, never its value."""


def optional_id(source: JSONObject, key: str) -> str | None:
    """Return the id that ``key`` holds (or the id of the expanded object there), ``None`` where it holds none."""
    value = source.get(key)
    if isinstance(value, dict):
        value = value.get("id")
    if value is None:
        return None
    if isinstance(value, str) and IDENTIFIER.fullmatch(value):
        return value
    raise UnexpectedShapeError(key)


def required_id(source: JSONObject, key: str) -> str:
    """Return the id that ``key`` holds."""
    value = optional_id(source, key)
    if value is None:
        raise UnexpectedShapeError(key)
    return value


def amount(source: JSONObject, key: str) -> int:
    """Return the amount that ``key`` holds, 0 or above, in minor units."""
    value = source.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_AMOUNT:
        return value
    raise UnexpectedShapeError(key)


def word(source: JSONObject, key: str) -> str:
    """Return the currency, status or mode that ``key`` holds."""
    value = source.get(key)
    if isinstance(value, str) and IDENTIFIER.fullmatch(value):
        return value
    raise UnexpectedShapeError(key)


def metadata(source: JSONObject) -> JSONObject:
    """Return the object's metadata, empty where there is none."""
    value = source.get("metadata")
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise UnexpectedShapeError("metadata")
