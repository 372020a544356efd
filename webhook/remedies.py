"""The advice for each parked reason. `EVENT` in it stands for the event's id."""

from __future__ import annotations

from webhook.events.sales import user_id_of
from webhook.ledger.ledger import ParkedEvent

_RETRY = "run `webhook retry EVENT`"
_RETRY_WITH_KEY = "run `webhook retry EVENT` with STRIPE_API_KEY set"
_ASSIGN_USER = "run `webhook assign EVENT --user UUID --reason TEXT`"
_ASSIGN_CREDITS = "run `webhook assign EVENT --credits N --reason TEXT`"
_DISCARD = "run `webhook discard EVENT --reason TEXT`"
_SET_USER = "set metadata.user_id on the payment, invoice or subscription at Stripe"

REMEDIES = {
    "wrong_mode": f"if STRIPE_LIVEMODE is wrong, correct it and {_RETRY}; "
    f"if the endpoint is wrong, correct the endpoint and {_DISCARD}",
    "unreadable": f"upgrade the worker, then {_RETRY}",
    "missing_api_key": f"set STRIPE_API_KEY (a restricted read-only key is enough), then {_RETRY}",
    "missing_object": "Stripe does not have an object that the event names: "
    f"set STRIPE_API_KEY to a key of the account or sandbox that sent it, then {_RETRY}; "
    f"if the object was deleted, {_DISCARD}",
    "missing_user": f"no user is known: {_SET_USER}, then {_RETRY_WITH_KEY}; or {_ASSIGN_USER}",
    "ambiguous_customer": f"several users claim its subscription or customer: {_SET_USER}, "
    f"then {_RETRY_WITH_KEY}; or {_ASSIGN_USER}",
    "missing_credits": "the sale names no credits: set metadata.credits on the price, payment, invoice or subscription "
    f"at Stripe, then {_RETRY_WITH_KEY}; or {_ASSIGN_CREDITS}",
    "invalid_credits": "metadata.credits is not a whole number from 1 to 1000000000: correct it on the price, payment, "
    f"invoice or subscription at Stripe, then {_RETRY_WITH_KEY}; or {_ASSIGN_CREDITS}",
    "unknown_user": f"its user has no account: create the account with that id, then {_RETRY}; or {_ASSIGN_USER}",
}
"""The advice for each reason."""

NOT_A_UUID = (
    "the user that it names is not a UUID: correct metadata.user_id on the payment, invoice or subscription at Stripe, "
    f"then {_RETRY_WITH_KEY}; or {_ASSIGN_USER}"
)
"""The advice for ``unknown_user`` if the event names an order or another system's user."""
NO_ACCOUNT = f"its user was erased, or is not a UUID: {_ASSIGN_USER}; or refund it at Stripe"
"""The advice for ``unknown_user`` if the event names no readable user itself."""


def remedy(event: ParkedEvent, event_id: str | None = None) -> str:
    """Return the advice for an event, with ``event_id`` in place of ``EVENT`` if it is given."""
    text = REMEDIES[event.reason]
    if event.reason == "unknown_user" and event.user_reference is None:
        text = NO_ACCOUNT
    elif event.reason == "unknown_user" and user_id_of(event.user_reference) is None:
        text = NOT_A_UUID
    return text.replace("EVENT", event_id) if event_id else text
