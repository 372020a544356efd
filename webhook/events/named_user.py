"""The user that an event names, unchecked, for people who look at a parked event. Pure functions, no I/O."""

from __future__ import annotations

from webhook.events.event import Event
from webhook.events.fields import IDENTIFIER, UnexpectedShapeError, metadata
from webhook.events.invoice_lines import subscription_details_of


def named_user(event: Event) -> str | None:
    """Return the user that the event's object names, a UUID or another reference, ``None`` if it names none."""
    source = event.object
    try:
        user = (metadata(subscription_details_of(source)) | metadata(source)).get("user_id") or source.get(
            "client_reference_id"
        )
    except UnexpectedShapeError:
        return None
    return user if isinstance(user, str) and IDENTIFIER.fullmatch(user) else None
