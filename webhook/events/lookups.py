"""What an event alone does not say, and Stripe's API does.

The functions that read events stay pure: they are handed an ``resolve`` that takes one of these and returns the answer as
plain JSON, or ``None`` where there is no API key to ask with.
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
    """All lines of an invoice, of which its event holds ten: https://docs.stripe.com/api/invoice-line-item/retrieve."""

    invoice_id: str


@dataclass(frozen=True)
class Price:
    """A price, its product in it: https://docs.stripe.com/api/prices/object."""

    price_id: str


@dataclass(frozen=True)
class ChargeRefunds:
    """All refunds of a charge: https://docs.stripe.com/api/refunds/list."""

    charge_id: str


@dataclass(frozen=True)
class RelatedObject:
    """What a thin event is about, as it is now: https://docs.stripe.com/event-destinations#thin-payload."""

    path: str


Lookup = SessionLines | InvoiceLines | Price | ChargeRefunds | RelatedObject
Resolve = Callable[[Lookup], Any]


def no_lookups(_: Lookup) -> None:
    """Answer nothing: there is no API key."""
