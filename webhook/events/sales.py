"""Checkout Sessions, payments and invoices to facts: what was sold to whom. Pure functions, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from webhook.events.facts import (
    INVOICE,
    PAYMENT_INTENT,
    SESSION,
    Customer,
    Facts,
    Ignored,
    Interpretation,
    Link,
    Sale,
    Unresolvable,
)
from webhook.events.fields import JSONObject, UnexpectedShapeError, amount, metadata, optional_id, required_id, word
from webhook.events.line_items import UNKNOWN, credits_of_lines
from webhook.events.lookups import InvoiceLines, Resolve, SessionLines

MOST_CREDITS = 1_000_000_000
"""The largest sale, in credits."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class _Named:
    """The user, the credits (a sum of lines is a number) and the Stripe customer that an object names."""

    user: Any
    credits: Any
    customer_id: str | None
    priced: bool = False
    """Whether the credits are those of line items."""

    @property
    def user_id(self) -> str | None:
        """The user as a UUID in its usual form, else ``None``."""
        return self.user if isinstance(self.user, str) and _UUID.fullmatch(self.user) else None

    @property
    def number_of_credits(self) -> int | None:
        """The credits as a whole number within the limit, else ``None``."""
        if isinstance(self.credits, str) and _DIGITS.fullmatch(self.credits):
            number = int(self.credits)
        elif type(self.credits) is int:
            number = self.credits
        else:
            return None
        return number if 0 <= number <= MOST_CREDITS else None

    def sale(self, payment_id: str, version: int, money_amount: int, currency: str, *, paid: bool) -> Sale:
        """Return the sale of this to whoever is named; the customer stands in where no user is."""
        customer_id = self.customer_id if self.user is None else None
        return Sale(
            payment_id,
            version,
            self.user_id,
            self.number_of_credits,
            money_amount,
            currency,
            paid,
            customer_id,
            self.priced,
        )

    def unsettled_reason(self) -> str | None:
        """Why nobody can settle this, ``None`` where what is named is well-formed (if only a part of it)."""
        bad_credits = self.credits is not None and self.number_of_credits is None
        bad_user = self.user is not None and self.user_id is None
        if self.user is None and self.customer_id is None and bad_credits:
            return "missing_user"
        if self.credits is None and bad_user:
            return "missing_credits"
        if bad_credits:
            return "invalid_credits"
        return "unknown_user" if bad_user else None


def checkout_session(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the sale that a Checkout Session is: https://docs.stripe.com/api/checkout/sessions/object.

    A subscription's sale is its invoice; the session tells who its customer is.
    """
    if source.get("mode") == "setup":
        return Ignored("no_payment")
    named = _named(source, metadata(source), source.get("client_reference_id"))
    if source.get("mode") == "subscription":
        customer = _customer(named)
        return Facts(customer) if customer else Ignored("no_payment")
    if named.credits is None:
        lines = resolve(SessionLines(required_id(source, "id")))
        named = named if lines is None else replace(named, credits=credits_of_lines(lines, resolve), priced=True)
    if named.user is None and named.credits is None:
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    session_id = required_id(source, "id")
    payment_id = optional_id(source, "payment_intent") or session_id
    money = amount(source, "amount_total")
    status = word(source, "payment_status")
    paid = status == "paid" or (status == "no_payment_required" and money == 0)
    sale = named.sale(payment_id, SESSION, money, word(source, "currency"), paid=paid)
    invoice_id = optional_id(source, "invoice")
    links = (Link(session_id, invoice_id, payment_id),) if invoice_id else ()
    return _settleable(named, sale, links)


def payment_intent(source: JSONObject) -> Interpretation:
    """Return the sale that a payment is: https://docs.stripe.com/api/payment_intents/object.

    Without credits of its own it counts only where it tells what a manual capture took: every other flow has another
    event that says paid.
    """
    named = _named(source, metadata(source), None)
    if named.credits is None and not is_captured_by_hand(source):
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    money, currency = amount(source, "amount_received"), word(source, "currency")
    sale = named.sale(required_id(source, "id"), PAYMENT_INTENT, money, currency, paid=True)
    return _settleable(named, sale)


def invoice(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the sale that a paid invoice is: https://docs.stripe.com/api/invoices/object.

    A subscription's counts when it begins a period, any other one when it carries credits itself.
    """
    own = metadata(source)
    named = _named(source, _subscription_metadata(source) | own, None)
    if "credits" not in own and not _begins_period(source):
        return Ignored("no_credits" if named.credits is None else "proration")
    if named.credits is None:
        lines, are_all = _invoice_lines(source, resolve)
        sold = credits_of_lines(lines, resolve)
        if sold is None or (sold is UNKNOWN and named.user is None):
            return Ignored("no_credits")
        if sold is not UNKNOWN and not are_all:
            return Unresolvable("missing_api_key", required_id(source, "id"))
        named = replace(named, credits=None if sold is UNKNOWN else sold, priced=True)
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    invoice_id = required_id(source, "id")
    sale = named.sale(invoice_id, INVOICE, amount(source, "amount_paid"), word(source, "currency"), paid=True)
    payment_id = optional_id(source, "payment_intent")
    links = (Link(invoice_id, invoice_id, payment_id),) if payment_id else ()
    return _settleable(named, sale, links)


def is_captured_by_hand(source: JSONObject) -> bool:
    """Whether the payment, or one of its payment methods alone, is captured by hand."""
    methods = source.get("payment_method_options")
    options = methods.values() if isinstance(methods, dict) else ()
    return any(isinstance(each, dict) and each.get("capture_method") == "manual" for each in (source, *options))


def _invoice_lines(source: JSONObject, resolve: Resolve) -> tuple[list[JSONObject], bool]:
    """Return the lines of an invoice, and whether these are all: it may have more than it holds, and nobody to ask."""
    lines = source.get("lines")
    if not isinstance(lines, dict) or not isinstance(lines.get("data"), list):
        raise UnexpectedShapeError("lines")
    if not lines.get("has_more"):
        return lines["data"], True
    answer: list[JSONObject] | None = resolve(InvoiceLines(required_id(source, "id")))
    return (lines["data"], False) if answer is None else (answer, True)


def invoice_payment(source: JSONObject) -> Interpretation:
    """Return which payment an invoice was paid by: https://docs.stripe.com/api/invoice-payment/object."""
    payment = source.get("payment")
    if not isinstance(payment, dict):
        raise UnexpectedShapeError("payment")
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
    subtotal = source.get("subtotal")
    gives_back = type(subtotal) is int and subtotal < 0  # more for what was left of a dearer plan than this one costs
    return begins and not gives_back and amount(source, "subtotal") > 0


def _named(source: JSONObject, names: JSONObject, fallback_user: Any) -> _Named:
    user = names.get("user_id") or fallback_user or None
    return _Named(user, names.get("credits"), optional_id(source, "customer"))


def _customer(named: _Named) -> tuple[Customer, ...]:
    """Return what is learned of who the Stripe customer is."""
    return (Customer(named.customer_id, named.user_id),) if named.customer_id and named.user_id else ()


def _settleable(named: _Named, sale: Sale, links: tuple[Link, ...] = ()) -> Interpretation:
    reason = named.unsettled_reason()
    if reason:
        return Unresolvable(reason, sale.payment_id)
    return Facts((*links, *(_customer(named) if sale.paid else ()), sale))
