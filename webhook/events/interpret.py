"""Events to facts: pure functions, no I/O.

Which event means what: https://docs.stripe.com/checkout/fulfillment and https://docs.stripe.com/api/events/types.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from webhook.events.facts import Ignored, Interpretation, Unsettled
from webhook.events.fields import IDENTIFIER, JSONObject, Unreadable
from webhook.events.lookups import Ask, RelatedObject, ask_nobody
from webhook.events.reversals import charge, dispute, refund
from webhook.events.sales import checkout_session, invoice, invoice_payment, payment_intent
from webhook.settings import Guards

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
"""The event types that :func:`interpret` turns into facts: what an endpoint has to be subscribed to."""


@dataclass(frozen=True)
class Event:
    """A verified event. Whether the fields other than ``id`` and ``type`` have Stripe's shape is not known yet."""

    id: str
    type: str
    livemode: Any
    account: Any
    """The connected account that it belongs to, ``None`` for our own."""
    object: JSONObject
    related: str | None = None
    """The path of the object at Stripe's API, for a thin event, which does not hold it."""


def interpret(event: Event, guards: Guards, ask: Ask = ask_nobody) -> Interpretation:
    """Return what the event says about credits, with the help of what Stripe's API answers."""
    if isinstance(event.account, str) and event.account not in guards.accounts:
        return Ignored("connected_account", lacks="STRIPE_ACCOUNT")
    is_wrong_mode = isinstance(event.livemode, bool) and event.livemode != guards.livemode
    # A key of one mode cannot see the objects of the other.
    interpretation = _interpret_object(event, ask_nobody if is_wrong_mode else ask)
    if isinstance(interpretation, Ignored):
        return replace(
            interpretation, lacks=_setting_to_ask_with(interpretation.reason, ask, is_wrong_mode=is_wrong_mode)
        )
    if is_wrong_mode:
        return Unsettled("wrong_mode")
    if not isinstance(event.livemode, bool | None) or not isinstance(event.account, str | None):
        return Unsettled("unreadable")
    return interpretation


def _setting_to_ask_with(reason: str, ask: Ask, *, is_wrong_mode: bool) -> str | None:
    """Return what lacks where Stripe's answer could have told otherwise and nobody could be asked."""
    if reason not in ("no_credits", "no_refunds"):
        return None
    if is_wrong_mode:
        return "STRIPE_LIVEMODE"
    return "STRIPE_API_KEY" if ask is ask_nobody else None


def _interpret_object(event: Event, ask: Ask) -> Interpretation:  # noqa: C901, PLR0911 - one line a case
    if not IDENTIFIER.fullmatch(event.type):
        return Ignored("event_type")
    try:
        if event.related:
            return _interpret_thin(event, event.related, ask)
        match event.type:
            case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
                return checkout_session(event.object, ask)
            case "payment_intent.succeeded":
                return payment_intent(event.object)
            case "invoice.paid":
                return invoice(event.object, ask)
            case "invoice_payment.paid":
                return invoice_payment(event.object)
            case "charge.refunded":
                return charge(event.object, ask)
            case "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated":
                return refund(event.object)
            case event_type if event_type.startswith("charge.dispute."):
                return dispute(event.object)
            case _:
                return Ignored("event_type")
    except Unreadable:
        return Unsettled("unreadable")


def _interpret_thin(event: Event, related: str, ask: Ask) -> Interpretation:
    """Fetch what the event is about, as it is now, and go on as with a snapshot of it."""
    if event.type not in HANDLED_EVENTS:
        return Ignored("event_type")
    source = ask(RelatedObject(related))
    if source is None:
        return Unsettled("missing_api_key")
    return _interpret_object(replace(event, object=source, related=None), ask)
