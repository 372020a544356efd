"""Checkout Sessions, payments and invoices to facts: what was sold to whom. Pure functions, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from webhook.facts import (
    INVOICE,
    PAYMENT_INTENT,
    SESSION,
    Facts,
    Ignored,
    Interpretation,
    Link,
    Sale,
    Unsettled,
)
from webhook.objects import JSONObject, Unreadable, amount, metadata, optional_id, required_id, word

MOST_CREDITS = 1_000_000_000
"""The largest sale, in credits."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class _Named:
    """The user and the credits that an object names, as they stand there."""

    user: Any
    credits: Any

    @property
    def user_id(self) -> str | None:
        """The user as a UUID in its usual form, else ``None``."""
        return self.user if isinstance(self.user, str) and _UUID.fullmatch(self.user) else None

    @property
    def number_of_credits(self) -> int | None:
        """The credits as a whole number within the limit, else ``None``."""
        if not (isinstance(self.credits, str) and _DIGITS.fullmatch(self.credits)):
            return None
        number = int(self.credits)
        return number if number <= MOST_CREDITS else None

    def unsettled_reason(self) -> str | None:
        """Why nobody can settle this, ``None`` where what is named is well-formed (if only a part of it)."""
        bad_credits = self.credits is not None and self.number_of_credits is None
        bad_user = self.user is not None and self.user_id is None
        if self.user is None and bad_credits:
            return "missing_user"
        if self.credits is None and bad_user:
            return "missing_credits"
        if bad_credits:
            return "invalid_credits"
        return "unknown_user" if bad_user else None


def checkout_session(source: JSONObject) -> Interpretation:
    """Return the sale that a Checkout Session is: https://docs.stripe.com/api/checkout/sessions/object."""
    if source.get("mode") in ("subscription", "setup"):
        return Ignored("no_payment")
    named = _named(metadata(source), source.get("client_reference_id"))
    if named.user is None and named.credits is None:
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    session_id = required_id(source, "id")
    payment_id = optional_id(source, "payment_intent") or session_id
    money = amount(source, "amount_total")
    status = word(source, "payment_status")
    sale = Sale(
        payment_id=payment_id,
        version=SESSION,
        user_id=named.user_id,
        credits=named.number_of_credits,
        money_amount=money,
        currency=word(source, "currency"),
        paid=status == "paid" or (status == "no_payment_required" and money == 0),
    )
    invoice_id = optional_id(source, "invoice")
    links = (Link(session_id, invoice_id, payment_id),) if invoice_id else ()
    return _settleable(named, sale, links)


def payment_intent(source: JSONObject) -> Interpretation:
    """Return the sale that a payment is: https://docs.stripe.com/api/payment_intents/object.

    Without credits of its own it counts only where it tells what a manual capture took: every other flow has another
    event that says paid.
    """
    named = _named(metadata(source), None)
    if named.credits is None and source.get("capture_method") != "manual":
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    sale = Sale(
        payment_id=required_id(source, "id"),
        version=PAYMENT_INTENT,
        user_id=named.user_id,
        credits=named.number_of_credits,
        money_amount=amount(source, "amount_received"),
        currency=word(source, "currency"),
        paid=True,
    )
    return _settleable(named, sale)


def invoice(source: JSONObject) -> Interpretation:
    """Return the sale that a paid invoice is: https://docs.stripe.com/api/invoices/object.

    A subscription's counts when it begins a period; credits of a proration would be minted by counting its lines.
    """
    own = metadata(source)
    named = _named(_subscription_metadata(source) | own, None)
    if named.credits is None:
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    if "credits" not in own and not _begins_period(source):
        return Ignored("proration")
    invoice_id = required_id(source, "id")
    sale = Sale(
        payment_id=invoice_id,
        version=INVOICE,
        user_id=named.user_id,
        credits=named.number_of_credits,
        money_amount=amount(source, "amount_paid"),
        currency=word(source, "currency"),
        paid=True,
    )
    payment_id = optional_id(source, "payment_intent")
    return _settleable(named, sale, (Link(invoice_id, invoice_id, payment_id),) if payment_id else ())


def invoice_payment(source: JSONObject) -> Interpretation:
    """Return which payment an invoice was paid by: https://docs.stripe.com/api/invoice-payment/object."""
    payment = source.get("payment")
    if not isinstance(payment, dict):
        raise Unreadable("payment")
    payment_id = optional_id(payment, "payment_intent")
    if payment_id is None:
        return Ignored("no_payment")
    return Facts((Link(required_id(source, "id"), required_id(source, "invoice"), payment_id),))


def _subscription_metadata(source: JSONObject) -> JSONObject:
    """Return the snapshot of its subscription's metadata, empty for an invoice of none.

    In ``parent`` since 2025-03-31.basil: https://docs.stripe.com/changelog/basil/2025-03-31/invoicing-parent-attribute.
    """
    holder = source.get("parent") or source
    details = holder.get("subscription_details") if isinstance(holder, dict) else None
    return metadata(details) if isinstance(details, dict) else {}


def _begins_period(source: JSONObject) -> bool:
    begins = source.get("billing_reason") in ("subscription_create", "subscription_cycle")
    return begins and amount(source, "subtotal") > 0


def _named(names: JSONObject, fallback_user: Any) -> _Named:
    return _Named(user=names.get("user_id") or fallback_user or None, credits=names.get("credits"))


def _settleable(named: _Named, sale: Sale, links: tuple[Link, ...] = ()) -> Interpretation:
    reason = named.unsettled_reason()
    return Unsettled(reason, sale.payment_id) if reason else Facts((*links, sale))
