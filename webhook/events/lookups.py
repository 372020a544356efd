"""Lookups: what an event does not contain and Stripe's API can answer.

The functions that read events stay pure. Their argument ``resolve`` takes a lookup. It returns the answer as plain
JSON, or ``None`` if there is no API key. It raises :class:`MissingObjectError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SessionLines:
    """All line items of a Checkout Session: https://docs.stripe.com/api/checkout/sessions/line_items."""

    session_id: str


@dataclass(frozen=True)
class InvoiceLines:
    """All line items of an invoice; its event has ten: https://docs.stripe.com/api/invoice-line-item/retrieve."""

    invoice_id: str


@dataclass(frozen=True)
class Price:
    """A price with its product expanded: https://docs.stripe.com/api/prices/object."""

    price_id: str


@dataclass(frozen=True)
class ReadablePrice:
    """A price, for its full amount and its interval. ``None`` also if the key may not read it, or Stripe lacks it."""

    price_id: str


@dataclass(frozen=True)
class ChargeRefunds:
    """All refunds of a charge: https://docs.stripe.com/api/refunds/list."""

    charge_id: str


@dataclass(frozen=True)
class PaymentSessions:
    """The Checkout Sessions of a PaymentIntent: https://docs.stripe.com/api/checkout/sessions/list."""

    payment_id: str


@dataclass(frozen=True)
class RelatedObject:
    """The current state of an object, such as a thin event's: https://docs.stripe.com/event-destinations#thin-payload."""

    path: str


Lookup = SessionLines | InvoiceLines | Price | ReadablePrice | ChargeRefunds | PaymentSessions | RelatedObject
Resolve = Callable[[Lookup], Any]


class MissingObjectError(Exception):
    """Stripe does not have the object of a lookup: the key belongs to another account, or the object was deleted."""


def no_lookups(_: Lookup) -> None:
    """Answer every lookup with ``None``: there is no API key."""
