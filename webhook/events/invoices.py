"""Invoices to facts: what was sold to whom, and by which payment. Pure functions, no I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from webhook.events.facts import INVOICE, INVOICE_METADATA, Claim, Facts, Ignored, Interpretation, Link
from webhook.events.fields import (
    JSONObject,
    UnexpectedShapeError,
    amount,
    currency,
    instant,
    metadata,
    optional_id,
    required_id,
)
from webhook.events.invoice_lines import subscription_details_of, subscription_of
from webhook.events.lookups import Resolve
from webhook.events.period_credits import period_grant
from webhook.events.sales import Grant, grant_of, one_time_claims, settleable, subscription_claims, user_id_of


def invoice(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the sale of a paid invoice: https://docs.stripe.com/api/invoices/object.

    Credits in the invoice's own metadata count as they are. Else the periods that it begins count, see
    :func:`period_grant`.
    """
    own = metadata(source)
    details = subscription_details_of(source)
    grant = replace(grant_of(source, metadata(details) | own), subscription_id=subscription_of(source))
    if grant.credit_count == 0:
        return Ignored("zero_credits")
    granted = grant if "credits" in own else period_grant(source, grant, resolve)
    if not isinstance(granted, Grant):
        return granted
    invoice_id = required_id(source, "id")
    sale = granted.sale(invoice_id, INVOICE, amount(source, "amount_paid"), currency(source), paid=True)
    payment_id = optional_id(source, "payment_intent")
    links = (Link(invoice_id, invoice_id, payment_id),) if payment_id else ()
    return settleable(granted, sale, _claims(source, granted, metadata(details).get("user_id")), links)


def invoice_payment(source: JSONObject) -> Interpretation:
    """Return the link of an invoice and its payment: https://docs.stripe.com/api/invoice-payment/object."""
    payment = source.get("payment")
    if not isinstance(payment, dict):
        raise UnexpectedShapeError("payment")
    payment_id = optional_id(payment, "payment_intent")
    if payment_id is None:
        return Ignored("no_payment")
    return Facts((Link(required_id(source, "id"), required_id(source, "invoice"), payment_id),))


def _claims(source: JSONObject, grant: Grant, subscription_user: Any) -> tuple[Claim, ...]:
    """Return the claims of an invoice, whose own metadata may name another receiver than its subscription's."""
    if grant.subscription_id is None:
        return one_time_claims(grant)
    named = (user_id_of(subscription_user) or grant.user_id, INVOICE_METADATA)
    return subscription_claims(grant.subscription_id, grant.customer_id, named, created=instant(source, "created"))
