"""The kinds of objects that `reconcile` and `audit` read: where Stripe lists them, and which permission that needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from webhook.events.fields import IDENTIFIER, JSONObject


@dataclass(frozen=True)
class Kind:
    """A kind of object. Stripe lists objects by the time of their creation."""

    name: str
    """The value of an object's field ``object``."""
    title: str
    """The plural, for people."""
    permission: str
    """What a restricted key needs."""
    path: str
    look_back: timedelta
    """How far before the window objects are listed. Later changes are found by events and open objects."""
    expand: tuple[str, ...] = ()
    """Fields to expand: https://docs.stripe.com/expand."""
    expand_older: tuple[str, ...] = ()
    """Further fields to expand in objects created before the window: they contain the time of payment."""

    def expand_parameter(self, *, older: bool, prefix: str = "data.") -> list[str]:
        """Return the value of the parameter ``expand``; in a request for one object the ``prefix`` is empty."""
        return [prefix + field for field in self.expand + (self.expand_older if older else ())]


SESSIONS = Kind(
    "checkout.session",
    "Checkout Sessions",
    "Checkout Sessions: Read, PaymentIntents: Read, Charges and Refunds: Read",
    "/v1/checkout/sessions",
    timedelta(days=35),
    expand=("line_items",),
    expand_older=("payment_intent.latest_charge",),
)
PAYMENT_INTENTS = Kind(
    "payment_intent",
    "PaymentIntents",
    "PaymentIntents: Read, Charges and Refunds: Read",
    "/v1/payment_intents",
    timedelta(days=35),
    expand_older=("latest_charge",),
)
INVOICES = Kind("invoice", "invoices", "Invoices: Read", "/v1/invoices", timedelta(days=180), expand=("payments",))
REFUNDS = Kind("refund", "refunds", "Charges and Refunds: Read", "/v1/refunds", timedelta(days=35))
DISPUTES = Kind("dispute", "disputes", "Disputes: Read", "/v1/disputes", timedelta(days=180))
KINDS = (SESSIONS, PAYMENT_INTENTS, INVOICES, REFUNDS, DISPUTES)
"""All kinds that are listed. Invoice payments are read from their invoices."""
KIND_BY_NAME = {kind.name: kind for kind in KINDS}

INVOICE_PAYMENT = "invoice_payment"
INVOICE_PAYMENTS_PATH = "/v1/invoice_payments"
CHARGES = Kind("charge", "charges", "Charges and Refunds: Read", "/v1/charges", timedelta())
INVOICE_PAYMENTS = Kind(INVOICE_PAYMENT, "invoice payments", "Invoices: Read", INVOICE_PAYMENTS_PATH, timedelta())
EVENTS = Kind("event", "events", "Events: Read", "/v1/events", timedelta())
_PREFIXES = {
    "cs": SESSIONS,
    "pi": PAYMENT_INTENTS,
    "in": INVOICES,
    "inpay": INVOICE_PAYMENTS,
    "ch": CHARGES,
    "py": CHARGES,
    "re": REFUNDS,
    "pyr": REFUNDS,
    "dp": DISPUTES,
    "du": DISPUTES,
    "evt": EVENTS,
}
"""The kind of an object by the start of its id. ``py`` and ``pyr`` are charges and refunds without a card."""
TITLES = {kind.name: kind.title for kind in KINDS} | {INVOICE_PAYMENT: "invoice payments"}
"""The plural of each kind of object, by its name."""


def kind_of(object_id: str) -> Kind | None:
    """Return the kind that the start of an id names, ``None`` if no sale has objects of that kind."""
    prefix, separator, _ = object_id.partition("_")
    return _PREFIXES.get(prefix) if separator else None


def is_object(source: Any) -> bool:
    """Whether this is an object with an id that the ledger can store."""
    return isinstance(source, dict) and isinstance(source.get("id"), str) and bool(IDENTIFIER.fullmatch(source["id"]))


def payments_in(source: JSONObject) -> list[Any]:
    """Return the payments that an invoice contains; empty for any other object."""
    match source:
        case {"object": "invoice", "payments": {"data": list(payments)}}:
            return payments
        case _:
            return []
