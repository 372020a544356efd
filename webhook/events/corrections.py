"""What an operator may have corrected at Stripe since an event: metadata and prices. Pure functions, no I/O.

Only metadata and prices are read again. Money and status stay as the event reported them, so the API's version makes
no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from webhook.events.event import Event
from webhook.events.fields import JSONObject, metadata, optional_id
from webhook.events.invoice_lines import subscription_details_of, subscription_of
from webhook.events.lookups import MissingObjectError, PaymentSessions, RelatedObject, Resolve
from webhook.events.sales import Grant

CORRECTABLE = frozenset({"missing_user", "ambiguous_customer", "missing_credits", "invalid_credits", "unknown_user"})
"""The parked reasons that metadata or a price at Stripe can change."""

_SESSIONS, _PAYMENT_INTENTS = "/v1/checkout/sessions", "/v1/payment_intents"
_INVOICES, _SUBSCRIPTIONS = "/v1/invoices", "/v1/subscriptions"


@dataclass(frozen=True)
class Correction:
    """An event with the metadata that its objects have now."""

    event: Event
    missing: tuple[str, ...] = ()
    """The ids of objects that Stripe does not have any more. Their metadata stays as it was."""


@dataclass
class _Reader:
    """Reads the current metadata of objects, and keeps the ids of those that are missing."""

    resolve: Resolve
    missing: list[str] = field(default_factory=list)

    def metadata(self, path: str, object_id: str | None) -> JSONObject | None:
        """Return the metadata; ``None`` without an id, or if Stripe does not have the object."""
        source = object_id and self.read(path, object_id)
        return metadata(source) if isinstance(source, dict) else None

    def read(self, path: str, object_id: str) -> Any:
        """Return the object, ``None`` if Stripe does not have it."""
        try:
            return self.resolve(RelatedObject(f"{path}/{quote(object_id, safe='')}"))
        except MissingObjectError:
            self.missing.append(object_id)
            return None


def corrected(event: Event, reason: str, resolve: Resolve) -> Correction:
    """Return the event with current metadata; ``reason`` is why it is parked.

    Raises :class:`UnexpectedShapeError` and the errors of ``resolve``.
    """
    reader = _Reader(resolve)
    match event.type:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            source = _session(event.object, reason, reader)
        case "payment_intent.succeeded":
            source = _own(event.object, _PAYMENT_INTENTS, reader)
        case "invoice.paid":
            source = _invoice(event.object, reason, reader)
        case _:
            source = event.object
    return Correction(replace(event, object=source), tuple(reader.missing))


def event_of_sale(payment_id: str, livemode: bool, account: str | None, resolve: Resolve) -> Event | None:  # noqa: FBT001
    """Return the event that describes a known sale as it is at Stripe now, ``None`` if the account does not have it.

    It is for a sale that is parked without an event. Raises the errors of ``resolve``.
    """
    found = _current_sale(payment_id, _Reader(resolve))
    if found is None:
        return None
    event_type, source = found
    return Event(payment_id, event_type, livemode, account, source)


def _current_sale(payment_id: str, reader: _Reader) -> tuple[str, JSONObject] | None:
    match payment_id.partition("_")[0]:
        case "in":
            event_type, source = "invoice.paid", reader.read(_INVOICES, payment_id)
        case "cs":
            event_type, source = "checkout.session.completed", reader.read(_SESSIONS, payment_id)
        case "pi":
            event_type, source = "payment_intent.succeeded", reader.read(_PAYMENT_INTENTS, payment_id)
            sessions = reader.resolve(PaymentSessions(payment_id)) if source else None
            if sessions:
                event_type, source = "checkout.session.completed", sessions[0]
        case _:
            return None
    return (event_type, source) if isinstance(source, dict) else None


def _own(source: JSONObject, path: str, reader: _Reader) -> JSONObject:
    """Return the object with its current metadata."""
    current = reader.metadata(path, optional_id(source, "id"))
    return source if current is None else source | {"metadata": current}


def _session(source: JSONObject, reason: str, reader: _Reader) -> JSONObject:
    """Return the session with current metadata. The Dashboard edits the metadata of its payment alone."""
    source = _own(source, _SESSIONS, reader)
    of_payment = reader.metadata(_PAYMENT_INTENTS, optional_id(source, "payment_intent"))
    stated = {"user_id": source.get("client_reference_id") or None} | metadata(source)
    return source | {"metadata": metadata(source) | _corrections(stated, of_payment or {}, reason)}


def _invoice(source: JSONObject, reason: str, reader: _Reader) -> JSONObject:
    """Return the invoice with current metadata and prices.

    Of the subscription's current metadata only the fields count that the invoice's snapshot lacks: a later plan of the
    subscription must not change what this invoice sold.
    """
    source = _with_current_prices(_own(source, _INVOICES, reader))
    details = subscription_details_of(source)
    of_subscription = reader.metadata(_SUBSCRIPTIONS, subscription_of(source)) or {}
    own = metadata(source)
    corrections = _corrections(metadata(details) | own, of_subscription, reason)
    if "credits" in own:
        corrections.pop("credits", None)
    changed = details | {"metadata": metadata(details) | corrections}
    own = own if "user_id" not in corrections else {key: own[key] for key in own if key != "user_id"}
    if not isinstance(source.get("parent"), dict):
        return source | {"metadata": own, "subscription_details": changed}
    return source | {"metadata": own, "parent": source["parent"] | {"subscription_details": changed}}


def _corrections(stated: JSONObject, other: JSONObject, reason: str) -> JSONObject:
    """Return the valid fields of ``other`` that replace missing or invalid ones of ``stated``."""
    given, found = _grant(stated), _grant(other)
    corrections = {}
    if found.user_id and (given.user_id is None or reason == "unknown_user"):
        corrections["user_id"] = found.user_id
    if found.credit_count is not None and given.credit_count is None:
        corrections["credits"] = other["credits"]
    return corrections


def _grant(names: JSONObject) -> Grant:
    return Grant(names.get("user_id"), names.get("credits"), None)


def _with_current_prices(source: JSONObject) -> JSONObject:
    """Return the invoice with the id of each price in place of an old version's copy of the price."""
    lines = source.get("lines")
    if not isinstance(lines, dict) or not isinstance(lines.get("data"), list):
        return source
    return source | {"lines": lines | {"data": [_with_price_id(line) for line in lines["data"]]}}


def _with_price_id(line: Any) -> Any:
    match line:
        case {"price": {"id": str(price_id), "metadata": dict(names)}} if _grant(names).credit_count is None:
            return line | {"price": price_id}
        case _:
            return line
