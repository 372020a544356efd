"""Events to facts: pure functions, no I/O.

Which event means what: https://docs.stripe.com/checkout/fulfillment and https://docs.stripe.com/api/events/types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from webhook.facts import PAYMENT_INTENT, SESSION, Facts, Ignored, Interpretation, Link, Sale, Unsettled
from webhook.objects import JSONObject, Unreadable, amount, metadata, optional_id, required_id, word
from webhook.settings import Guards

HANDLED_EVENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "payment_intent.succeeded",
)
"""The event types that :func:`interpret` turns into facts: what an endpoint has to be subscribed to."""

MOST_CREDITS = 1_000_000_000
"""The largest sale, in credits."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class Event:
    """A verified event. Whether the fields other than ``id`` and ``type`` have Stripe's shape is not known yet."""

    id: str
    type: str
    livemode: Any
    account: Any
    """The connected account that it belongs to, ``None`` for our own."""
    object: JSONObject


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


def interpret(event: Event, guards: Guards) -> Interpretation:
    """Return what the event says about credits."""
    if isinstance(event.account, str) and event.account not in guards.accounts:
        return Ignored("connected_account")
    interpretation = _interpret_object(event)
    if isinstance(interpretation, Ignored):
        return interpretation
    if isinstance(event.livemode, bool) and event.livemode != guards.livemode:
        return Unsettled("wrong_mode")
    if not isinstance(event.livemode, bool | None) or not isinstance(event.account, str | None):
        return Unsettled("unreadable")
    return interpretation


def _interpret_object(event: Event) -> Interpretation:
    try:
        match event.type:
            case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
                return _checkout_session(event.object)
            case "payment_intent.succeeded":
                return _payment_intent(event.object)
            case _:
                return Ignored("event_type")
    except Unreadable:
        return Unsettled("unreadable")


def _checkout_session(session: JSONObject) -> Interpretation:
    """https://docs.stripe.com/api/checkout/sessions/object."""
    if session.get("mode") in ("subscription", "setup"):
        return Ignored("no_payment")
    named = _named(session, session.get("client_reference_id"))
    if named.user is None and named.credits is None:
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    session_id = required_id(session, "id")
    payment_id = optional_id(session, "payment_intent") or session_id
    money = amount(session, "amount_total")
    status = word(session, "payment_status")
    sale = Sale(
        payment_id=payment_id,
        version=SESSION,
        user_id=named.user_id,
        credits=named.number_of_credits,
        money_amount=money,
        currency=word(session, "currency"),
        paid=status == "paid" or (status == "no_payment_required" and money == 0),
    )
    invoice_id = optional_id(session, "invoice")
    links = (Link(session_id, invoice_id, payment_id),) if invoice_id else ()
    return _settleable(named, sale, links)


def _payment_intent(payment_intent: JSONObject) -> Interpretation:
    """https://docs.stripe.com/api/payment_intents/object.

    Without credits of its own it counts only where it tells what a manual capture took: every other flow has another
    event that says paid.
    """
    named = _named(payment_intent, None)
    if named.credits is None and payment_intent.get("capture_method") != "manual":
        return Ignored("no_credits")
    if named.number_of_credits == 0:
        return Ignored("zero_credits")
    sale = Sale(
        payment_id=required_id(payment_intent, "id"),
        version=PAYMENT_INTENT,
        user_id=named.user_id,
        credits=named.number_of_credits,
        money_amount=amount(payment_intent, "amount_received"),
        currency=word(payment_intent, "currency"),
        paid=True,
    )
    return _settleable(named, sale)


def _named(source: JSONObject, fallback_user: Any) -> _Named:
    names = metadata(source)
    return _Named(user=names.get("user_id") or fallback_user or None, credits=names.get("credits"))


def _settleable(named: _Named, sale: Sale, links: tuple[Link, ...] = ()) -> Interpretation:
    reason = named.unsettled_reason()
    return Unsettled(reason, sale.payment_id) if reason else Facts((*links, sale))
