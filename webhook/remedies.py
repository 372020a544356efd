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
    "missing_user": f"we do not know whose account the payment is for: {_ASSIGN_USER}; "
    f"or a developer can {_SET_USER}, then {_RETRY_WITH_KEY}",
    "ambiguous_customer": "several accounts share the subscription or customer, and we do not know which of them the "
    f"payment is for: {_ASSIGN_USER}; or a developer can {_SET_USER}, then {_RETRY_WITH_KEY}",
    "missing_credits": f"we do not know how many credits were bought: {_ASSIGN_CREDITS}; or a developer can set "
    f"metadata.credits on the price, payment, invoice or subscription at Stripe, then {_RETRY_WITH_KEY}",
    "invalid_credits": f"we do not know how many credits were bought: {_ASSIGN_CREDITS}; or a developer can correct "
    "metadata.credits, which is not a whole number from 1 to 1000000000, on the price, payment, invoice or "
    f"subscription at Stripe, then {_RETRY_WITH_KEY}",
    "unknown_user": f"the user that the payment names has no account: {_ASSIGN_USER}; "
    f"or create the account with that id, then {_RETRY}",
}
"""The advice for each reason."""

NOT_A_UUID = (
    f"the user that the payment names is not a UUID: {_ASSIGN_USER}; or a developer can correct metadata.user_id on "
    f"the payment, invoice or subscription at Stripe, then {_RETRY_WITH_KEY}"
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
