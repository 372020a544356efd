"""Events as Stripe sends them, recorded as events/<API version>/<type>[.<variant>].json.

A builder returns a copy of a recorded event with the given fields of its object replaced. The fields have
Stripe's names; `event_id` is the id of the event itself. An unknown field raises a TypeError.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stripe import WebhookSignature

from support.project import EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSIONS = ("2022-11-15", "2025-03-31.basil", "2026-10-28.endive")
NEWEST = VERSIONS[-1]
USER_ID = "7b0d4c5e-2f3a-4c1d-9e8f-0a1b2c3d4e5f"
AS_RECORDED: Any = object()


def recorded(name: str, version: str = NEWEST) -> dict[str, Any]:
    """Return a new copy of the event in the file `name`.json of this API version."""
    return json.loads(_text(EVENTS / version / f"{name}.json"))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def session_event(  # noqa: PLR0913 - one for each value that tests vary
    name: str = "checkout.session.completed",
    version: str = NEWEST,
    *,
    event_id: str = AS_RECORDED,
    user_id: str | None = AS_RECORDED,
    credits: object = AS_RECORDED,  # noqa: A002 - Stripe's metadata key
    amount: int = AS_RECORDED,
    **fields: Any,
) -> dict[str, Any]:
    """Return a Checkout Session's event; `fields` are id, payment_intent, currency, payment_status, ….

    `user_id` is set in the metadata, and as `client_reference_id` unless this is given too. If `user_id` or
    `credits` is None, its key is removed. `amount` (minor units) is both the subtotal and the total.
    """
    if user_id is not AS_RECORDED:
        fields.setdefault("client_reference_id", user_id)
    if amount is not AS_RECORDED:
        fields = {"amount_subtotal": amount, "amount_total": amount} | fields
    event = _event(name, version, event_id, fields)
    _with_metadata(event["data"]["object"], user_id=user_id, credits=credits)
    return event


def payment_intent_event(  # noqa: PLR0913 - one for each value that tests vary
    name: str = "payment_intent.succeeded",
    version: str = NEWEST,
    *,
    event_id: str = AS_RECORDED,
    user_id: str | None = AS_RECORDED,
    credits: object = AS_RECORDED,  # noqa: A002 - Stripe's metadata key
    amount: int = AS_RECORDED,
    **fields: Any,
) -> dict[str, Any]:
    """Return a PaymentIntent's event; `amount` (minor units) is also `amount_received` unless this is given."""
    if amount is not AS_RECORDED:
        fields = {"amount": amount, "amount_received": amount} | fields
    event = _event(name, version, event_id, fields)
    _with_metadata(event["data"]["object"], user_id=user_id, credits=credits)
    return event


def invoice_event(  # noqa: PLR0913 - one for each value that tests vary
    name: str = "invoice.paid",
    version: str = NEWEST,
    *,
    event_id: str = AS_RECORDED,
    user_id: str | None = AS_RECORDED,
    credits: object = AS_RECORDED,  # noqa: A002 - Stripe's metadata key
    subscription: str = AS_RECORDED,
    **fields: Any,
) -> dict[str, Any]:
    """Return a subscription invoice's event; user and credits are in the subscription's metadata."""
    event = _event(name, version, event_id, fields)
    source = event["data"]["object"]
    _with_metadata(source["parent"]["subscription_details"], user_id=user_id, credits=credits)
    if subscription is not AS_RECORDED:
        source["parent"]["subscription_details"]["subscription"] = subscription
        for line in source["lines"]["data"]:
            line["parent"]["subscription_item_details"]["subscription"] = subscription
    return event


def invoice_payment_event(
    *, event_id: str = AS_RECORDED, payment_intent: str = AS_RECORDED, **fields: Any
) -> dict[str, Any]:
    """Return the event that links an invoice to the PaymentIntent that paid it."""
    event = _event("invoice_payment.paid", NEWEST, event_id, fields)
    if payment_intent is not AS_RECORDED:
        event["data"]["object"]["payment"]["payment_intent"] = payment_intent
    return event


def refund_event(
    name: str = "refund.created", version: str = NEWEST, *, event_id: str = AS_RECORDED, **fields: Any
) -> dict[str, Any]:
    """Return a refund's event; `fields` are id, payment_intent, charge, amount, currency, status, …."""
    return _event(name, version, event_id, fields)


def dispute_event(
    name: str = "charge.dispute.created",
    version: str = NEWEST,
    *,
    event_id: str = AS_RECORDED,
    balance_transactions: Sequence[int] = AS_RECORDED,
    **fields: Any,
) -> dict[str, Any]:
    """Return a dispute's event; `balance_transactions` are amounts (< 0 withdrawn, > 0 reinstated)."""
    if balance_transactions is not AS_RECORDED:
        entries = enumerate(balance_transactions)
        fields["balance_transactions"] = [_entry(amount, index, version) for index, amount in entries]
    return _event(name, version, event_id, fields)


def sign(body: bytes, secret: str, timestamp: int | None = None) -> str:
    """Return the `Stripe-Signature` header of a body, which may be invalid UTF-8, at a Unix time (default: now)."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    try:
        return WebhookSignature.generate_signature_header(body.decode(), secret, timestamp)
    except UnicodeDecodeError:
        signed = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256)
        return f"t={timestamp},v1={signed.hexdigest()}"


def _event(name: str, version: str, event_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    event = recorded(name, version)
    stripe_object = event["data"]["object"]
    if unknown := fields.keys() - stripe_object.keys():
        raise TypeError(f"{name} of {version} has no field {', '.join(sorted(unknown))}")
    stripe_object |= fields
    return event if event_id is AS_RECORDED else event | {"id": event_id}


def _with_metadata(holder: dict[str, Any], **metadata: object) -> None:
    changes = {key: value for key, value in metadata.items() if value is not AS_RECORDED}
    merged = holder["metadata"] | changes
    holder["metadata"] = {key: str(value) for key, value in merged.items() if value is not None}


def _entry(amount: int, index: int, version: str) -> dict[str, Any]:
    dispute = recorded("charge.dispute.funds_reinstated", version)["data"]["object"]
    withdrawn, reinstated = dispute["balance_transactions"]
    entry = withdrawn if amount < 0 else reinstated
    numbered = f"{entry['id'][:-2]}{index:02}"
    return entry | {"id": numbered, "amount": amount, "net": amount - entry["fee"]}


def thin_event(event_type: str, path: str, **envelope: Any) -> dict[str, Any]:
    """An event notification: https://docs.stripe.com/event-destinations#thin-payload."""
    return {
        "id": "evt_test_65",
        "object": "v2.core.event",
        "type": event_type,
        "created": "2026-11-20T10:00:00.000Z",
        "livemode": False,
        "context": None,
        "reason": None,
        "related_object": {"id": path.rpartition("/")[2], "type": "…", "url": path},
        "snapshot_event": "evt_1",
    } | envelope
