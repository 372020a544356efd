"""Events to facts: pure functions, no I/O.

The meaning of each event: https://docs.stripe.com/checkout/fulfillment and https://docs.stripe.com/api/events/types.
"""

from __future__ import annotations

from dataclasses import replace

from webhook.events.event import Event, EventScope
from webhook.events.facts import Ignored, Interpretation, Unresolvable
from webhook.events.fields import IDENTIFIER, UnexpectedShapeError, optional_id
from webhook.events.invoices import invoice, invoice_payment
from webhook.events.lookups import MissingObjectError, RelatedObject, Resolve, no_lookups
from webhook.events.reversals import charge, dispute, refund
from webhook.events.sales import checkout_session, payment_intent

HANDLED_EVENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "payment_intent.succeeded",
    "invoice.paid",
    "invoice_payment.paid",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refund.updated",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
"""The event types that :func:`interpret` turns into facts. An endpoint has to enable all of them."""


def interpret(event: Event, scope: EventScope, resolve: Resolve = no_lookups) -> Interpretation:
    """Return what the event states about credits; ``resolve`` looks up what the event does not contain."""
    if isinstance(event.account, str) and event.account not in scope.accounts:
        return Ignored("connected_account", missing_setting="STRIPE_ACCOUNT")
    is_wrong_mode = isinstance(event.livemode, bool) and event.livemode != scope.livemode
    # A key of one mode cannot see the objects of the other.
    interpretation = _interpret_object(event, no_lookups if is_wrong_mode else resolve)
    if isinstance(interpretation, Ignored):
        return replace(
            interpretation,
            missing_setting=_missing_setting(interpretation.reason, resolve, is_wrong_mode=is_wrong_mode),
        )
    if is_wrong_mode:
        return Unresolvable("wrong_mode", interpretation.payment_id)
    if not isinstance(event.livemode, bool | None) or not isinstance(event.account, str | None):
        return Unresolvable("unreadable")
    return interpretation


def _missing_setting(reason: str, resolve: Resolve, *, is_wrong_mode: bool) -> str | None:
    """Return the missing setting, if a lookup that it allows could change the interpretation."""
    if reason not in ("no_credits", "no_refunds"):
        return None
    if is_wrong_mode:
        return "STRIPE_LIVEMODE"
    return "STRIPE_API_KEY" if resolve is no_lookups else None


def _interpret_object(event: Event, resolve: Resolve) -> Interpretation:
    if not IDENTIFIER.fullmatch(event.type):
        return Ignored("event_type")
    try:
        try:
            return _interpret_thin(event, resolve) if event.is_thin else _interpret_type(event, resolve)
        except MissingObjectError:
            return Unresolvable("missing_object", _sale_of(event))
    except UnexpectedShapeError:
        return Unresolvable("unreadable")


def _interpret_type(event: Event, resolve: Resolve) -> Interpretation:  # noqa: PLR0911 - one line a case
    match event.type:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            return checkout_session(event.object, resolve)
        case "payment_intent.succeeded":
            return payment_intent(event.object)
        case "invoice.paid":
            return invoice(event.object, resolve)
        case "invoice_payment.paid":
            return invoice_payment(event.object)
        case "charge.refunded":
            return charge(event.object, resolve)
        case "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated":
            return refund(event.object)
        case event_type if event_type.startswith("charge.dispute."):
            return dispute(event.object)
        case _:
            return Ignored("event_type")


def _sale_of(event: Event) -> str | None:
    """Return the sale of an event that is one itself. Another event of the sale can then settle it.

    A refund is not: its sale is settled without it.
    """
    source = event.object
    match event.type:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            return optional_id(source, "payment_intent") or optional_id(source, "id")
        case "invoice.paid":
            return optional_id(source, "id")
        case _:
            return None


def _interpret_thin(event: Event, resolve: Resolve) -> Interpretation:
    """Look up the current state of the event's object, and interpret it like a snapshot."""
    if event.type not in HANDLED_EVENTS:
        return Ignored("event_type")
    if event.related is None:
        raise UnexpectedShapeError("related_object")
    source = resolve(RelatedObject(event.related))
    if source is None:
        return Unresolvable("missing_api_key")
    return _interpret_object(replace(event, object=source, is_thin=False), resolve)
