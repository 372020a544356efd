"""The user that an event names, unchecked, for people who look at a parked event. Pure functions, no I/O."""

from __future__ import annotations

from webhook.events.event import Event
from webhook.events.fields import IDENTIFIER, JSONObject, UnexpectedShapeError, metadata


def named_user(event: Event) -> str | None:
    """Return the user that the event's object names, a UUID or another reference, ``None`` if it names none."""
    source = event.object
    try:
        user = (subscription_metadata(source) | metadata(source)).get("user_id") or source.get("client_reference_id")
    except UnexpectedShapeError:
        return None
    return user if isinstance(user, str) and IDENTIFIER.fullmatch(user) else None


def subscription_details(source: JSONObject) -> JSONObject:
    """Return the part of an invoice that describes its subscription, empty without a subscription.

    In ``parent`` since 2025-03-31.basil: https://docs.stripe.com/changelog/basil/2025-03-31/invoicing-parent-attribute.
    """
    holder = source.get("parent") or source
    details = holder.get("subscription_details") if isinstance(holder, dict) else None
    return details if isinstance(details, dict) else {}


def subscription_metadata(source: JSONObject) -> JSONObject:
    """Return an invoice's snapshot of its subscription's metadata, empty without a subscription."""
    return metadata(subscription_details(source))
