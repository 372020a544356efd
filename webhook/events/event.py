"""A delivery's body, parsed as a Stripe event, and the scope of events that the worker processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.signature import InvalidDeliveryError, Rejection


@dataclass(frozen=True)
class Event:
    """A verified event. Its id and type are strings, its object is a JSON object. Other fields have any shape."""

    id: str
    type: str
    livemode: Any
    account: Any
    """The connected account of the event, ``None`` for our own account."""
    object: JSONObject
    """Empty in a thin event, which does not contain its object."""
    is_thin: bool = False
    related: str | None = None
    """The path in API v1 of a thin event's object, if it has one."""


@dataclass(frozen=True)
class EventScope:
    """The events that the worker processes: those of one mode, of our own and the listed connected accounts."""

    livemode: bool
    accounts: frozenset[str] = frozenset()
    """Connected accounts, ``acct_…``."""

    @property
    def every_account(self) -> tuple[str | None, ...]:
        """All accounts that count, as requests to Stripe name them; ``None`` is our own."""
        return (None, *sorted(self.accounts))


def read_event(text: str) -> Event:
    """Return the event in the body; raise :class:`InvalidDeliveryError` if the body is not an event."""
    try:
        body = _parse(text)
    except (ValueError, RecursionError):
        raise InvalidDeliveryError(Rejection.NOT_JSON) from None
    event = _event(body) if isinstance(body, dict) else None
    if event is None:
        raise InvalidDeliveryError(Rejection.NOT_AN_EVENT)
    return event


def _event(body: JSONObject) -> Event | None:
    """Return the event, ``None`` if it is none. A ``match`` would take ten times as long for each delivery."""
    event_id, event_type, data = body.get("id"), body.get("type"), body.get("data")
    if not (isinstance(event_id, str) and isinstance(event_type, str)):
        return None
    if body.get("object") == "v2.core.event":
        return _thin_event(body)
    source = data.get("object") if isinstance(data, dict) else None
    if not isinstance(source, dict):
        return None
    return Event(_storable_id(event_id), event_type, body.get("livemode"), body.get("account"), source)


def _thin_event(body: JSONObject) -> Event:
    return Event(
        id=_storable_id(body["id"]),
        type=body["type"].removeprefix("v1."),
        livemode=body.get("livemode"),
        account=body.get("context"),
        object={},
        is_thin=True,
        related=_related_path(body),
    )


def _related_path(body: JSONObject) -> str | None:
    """Return the path of a thin event's object, ``None`` if it has no object in API v1."""
    match body.get("related_object"):
        case {"url": str(url)} if url.startswith("/v1/") and url.isascii():
            return url
        case _:
            return None


def _reject_constant(constant: str) -> NoReturn:
    """Reject NaN and Infinity: Python's parser accepts them, JSON and Postgres do not."""
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_constant=_reject_constant)


def _parse(text: str) -> Any:
    """Return the value of the JSON text, as :data:`_JSON` does.

    orjson is faster, but rejects lone surrogates. It returns integers beyond 64 bits as floats. No field may have a
    number as large as that, so they are refused either way.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return _JSON.decode(text)


def _storable_id(event_id: str) -> str:
    """Return the event's id, or its digest if Postgres may not be able to store it. Stripe creates no such ids."""
    if IDENTIFIER.fullmatch(event_id):
        return event_id
    return "evt_sha256_" + hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()
