"""Invoices to facts: what was sold to whom, and by which payment. Pure functions, no I/O."""

from __future__ import annotations

from dataclasses import replace

from webhook.events.facts import INVOICE, Facts, Ignored, Interpretation, Link, Unresolvable
from webhook.events.fields import JSONObject, UnexpectedShapeError, amount, currency, metadata, optional_id, required_id
from webhook.events.line_items import UNKNOWN, credits_of_lines
from webhook.events.lookups import InvoiceLines, Resolve
from webhook.events.sales import grant_of, settleable


def invoice(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the sale of a paid invoice: https://docs.stripe.com/api/invoices/object.

    A subscription's invoice counts if it begins a period, any other one if its own metadata names credits.
    """
    own = metadata(source)
    grant = grant_of(source, _subscription_metadata(source) | own)
    if "credits" not in own and not _begins_period(source):
        return Ignored("no_credits" if grant.credits is None else "proration")
    if grant.credits is None:
        lines, is_complete = _lines(source, resolve)
        sold = credits_of_lines(lines, resolve)
        if sold is None or (sold is UNKNOWN and grant.user_id is None):
            return Ignored("no_credits")
        if sold is not UNKNOWN and not is_complete:
            return Unresolvable("missing_api_key", required_id(source, "id"))
        grant = replace(grant, credits=None if sold is UNKNOWN else sold, priced=True)
    if grant.credit_count == 0:
        return Ignored("zero_credits")
    invoice_id = required_id(source, "id")
    sale = grant.sale(invoice_id, INVOICE, amount(source, "amount_paid"), currency(source), paid=True)
    payment_id = optional_id(source, "payment_intent")
    links = (Link(invoice_id, invoice_id, payment_id),) if payment_id else ()
    return settleable(grant, sale, links)


def invoice_payment(source: JSONObject) -> Interpretation:
    """Return the link of an invoice and its payment: https://docs.stripe.com/api/invoice-payment/object."""
    payment = source.get("payment")
    if not isinstance(payment, dict):
        raise UnexpectedShapeError("payment")
    payment_id = optional_id(payment, "payment_intent")
    if payment_id is None:
        return Ignored("no_payment")
    return Facts((Link(required_id(source, "id"), required_id(source, "invoice"), payment_id),))


def _lines(source: JSONObject, resolve: Resolve) -> tuple[list[JSONObject], bool]:
    """Return the line items, and whether they are complete. An event has the first ten; the rest needs an API key."""
    lines = source.get("lines")
    if not isinstance(lines, dict) or not isinstance(lines.get("data"), list):
        raise UnexpectedShapeError("lines")
    if not lines.get("has_more"):
        return lines["data"], True
    answer: list[JSONObject] | None = resolve(InvoiceLines(required_id(source, "id")))
    return (lines["data"], False) if answer is None else (answer, True)


def _subscription_metadata(source: JSONObject) -> JSONObject:
    """Return the snapshot of the subscription's metadata, empty without a subscription.

    In ``parent`` since 2025-03-31.basil: https://docs.stripe.com/changelog/basil/2025-03-31/invoicing-parent-attribute.
    """
    holder = source.get("parent") or source
    details = holder.get("subscription_details") if isinstance(holder, dict) else None
    return metadata(details) if isinstance(details, dict) else {}


def _begins_period(source: JSONObject) -> bool:
    """Return whether the invoice begins a period of its subscription and costs money.

    If the subtotal is negative, the credit for unused time on a more expensive plan exceeds the new plan's price.
    """
    begins = source.get("billing_reason") in ("subscription_create", "subscription_cycle")
    subtotal = source.get("subtotal")
    is_credited = type(subtotal) is int and subtotal < 0
    return begins and not is_credited and amount(source, "subtotal") > 0
