"""A delivery's body, parsed as one Stripe event; and which events count."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, NoReturn

from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.signature import InvalidDeliveryError, Rejection


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


@dataclass(frozen=True)
class EventScope:
    """Whose events count: those of one mode, and of our own account or the connected ones that are listed."""

    livemode: bool
    accounts: frozenset[str] = frozenset()
    """Connected accounts, ``acct_…``."""

    @property
    def every_account(self) -> tuple[str | None, ...]:
        """All that count, as requests to Stripe name them: ``None`` is our own."""
        return (None, *sorted(self.accounts))


def read_event(text: str) -> Event:
    """Return the event in the body, or raise :class:`InvalidDeliveryError` where it is not one."""
    try:
        body = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise InvalidDeliveryError(Rejection.NOT_JSON) from None
    match body:
        case {"id": str(event_id), "type": str(event_type), "data": {"object": dict(source)}}:
            return Event(
                id=_storable_id(event_id),
                type=event_type,
                livemode=body.get("livemode"),
                account=body.get("account"),
                object=source,
            )
        case {"id": str(event_id), "type": str(event_type), "related_object": {"url": str(url)}} if _is_thin(body, url):
            return Event(
                id=_storable_id(event_id),
                type=event_type.removeprefix("v1."),
                livemode=body.get("livemode"),
                account=body.get("context"),
                object={},
                related=url,
            )
        case _:
            raise InvalidDeliveryError(Rejection.NOT_AN_EVENT)


def _is_thin(body: JSONObject, url: str) -> bool:
    """Whether the body is an event notification about an object of API v1."""
    return body.get("object") == "v2.core.event" and url.startswith("/v1/") and url.isascii()


def _refuse_constant(constant: str) -> NoReturn:
    """NaN and Infinity: Python's parser takes them, JSON and Postgres do not."""
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _storable_id(event_id: str) -> str:
    """Return the event's id, or a digest of one that Stripe never makes and Postgres could not hold."""
    if IDENTIFIER.fullmatch(event_id):
        return event_id
    return "evt_sha256_" + hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()
