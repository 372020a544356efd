"""The e-mail address of the person who paid, so that support finds a parked event by it. Pure functions, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from typing import Any

from webhook.events.event import read_event
from webhook.events.fields import JSONObject
from webhook.events.signature import InvalidDeliveryError

_PATHS = (
    ("customer_details", "email"),
    ("customer_email",),
    ("receipt_email",),
    ("billing_details", "email"),
    ("latest_charge", "billing_details", "email"),
    ("payment_intent", "receipt_email"),
    ("payment_intent", "latest_charge", "billing_details", "email"),
    ("evidence", "customer_email_address"),
)
"""Where Stripe's objects have it, expanded ones included. The first path with an address counts.

They are fields of Checkout Sessions, invoices, PaymentIntents, charges and disputes: https://docs.stripe.com/api.
"""
_CHARACTER = r"[^\s@\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
_ADDRESS = re.compile(f"{_CHARACTER}+@{_CHARACTER}+")
"""Without control, invisible and bidirectional characters, so it is safe to store and to print."""
_LONGEST = 512


def payer_email(source: JSONObject) -> str | None:
    """Return the payer's e-mail address as the object has it, ``None`` if it has none."""
    values: Iterator[Any] = (reduce(_field, path, source) for path in _PATHS)
    return next((value for value in values if is_email(value)), None)


def payer_email_in(text: str) -> str | None:
    """Return the payer's e-mail address in the body of an event, ``None`` if it has none."""
    try:
        return payer_email(read_event(text).object)
    except InvalidDeliveryError:
        return None


def is_email(value: Any) -> bool:
    """Whether a value looks like an e-mail address. Stripe checks addresses itself."""
    return isinstance(value, str) and len(value) <= _LONGEST and bool(_ADDRESS.fullmatch(value))


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None
