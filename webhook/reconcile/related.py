"""One object and everything that belongs to its sale, however old."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.events.fields import JSONObject
from webhook.reconcile.account import AccountReader
from webhook.stripe_api.kinds import (
    CHARGES,
    DISPUTES,
    INVOICE_PAYMENT,
    INVOICES,
    PAYMENT_INTENTS,
    REFUNDS,
    SESSIONS,
    is_object,
    kind_of,
    payments_in,
)


def related_objects(reader: AccountReader, object_id: str) -> list[JSONObject]:
    """Return the object, then its session, payments, invoices, refunds and disputes; empty if Stripe lacks the object.

    Raises :class:`StripeUnavailableError`.
    """
    found: dict[str, JSONObject] = {}
    requested: set[str] = set()
    waiting = _get(reader, object_id, requested)
    while waiting:
        source = waiting.pop(0)
        if not is_object(source):
            found[f"unreadable {len(found)}"] = source
        elif source["id"] not in found:
            complete = reader.stripe.with_all_payments(reader.account, source)
            found[source["id"]] = complete
            waiting += _listed(reader, complete)
            if not _is_of_another_invoice(complete, object_id):
                waiting += [each for name in _names_in(complete) for each in _get(reader, name, requested)]
    return [source for source in found.values() if not _is_in_its_invoice(source, found)]


def _get(reader: AccountReader, object_id: str, requested: set[str]) -> list[JSONObject]:
    """Return an object that was not requested before."""
    kind = kind_of(object_id)
    if kind is None or object_id in requested:
        return []
    requested.add(object_id)
    return reader.get(kind, object_id)


def _listed(reader: AccountReader, source: JSONObject) -> list[JSONObject]:
    """Return what Stripe lists by the object, because the object does not name it."""
    match source:
        case {"object": PAYMENT_INTENTS.name, "id": payment_id}:
            lists = [reader.listed(kind, payment_intent=payment_id) for kind in (SESSIONS, REFUNDS, DISPUTES)]
            return [*reader.invoice_payments(payment_id), *(each for listed in lists for each in listed)]
        case {"object": CHARGES.name, "id": charge_id, "payment_intent": None}:
            return [each for kind in (REFUNDS, DISPUTES) for each in reader.listed(kind, charge=charge_id)]
        case {"object": INVOICES.name} if subscription_id := _subscription_of(source):
            return reader.listed(SESSIONS, subscription=subscription_id)
        case _:
            return []


def _is_of_another_invoice(source: JSONObject, object_id: str) -> bool:
    """Whether a session only claims the subscription: it names its first invoice, which is another sale."""
    return source.get("mode") == "subscription" and source["id"] != object_id


def _is_in_its_invoice(source: JSONObject, found: dict[str, JSONObject]) -> bool:
    """Whether an invoice payment is interpreted as part of its invoice."""
    return source.get("object") == INVOICE_PAYMENT and _id_of(source.get("invoice")) in found


def _names_in(source: JSONObject) -> Iterator[str]:
    """Yield the ids of objects of the same sale that the object names."""
    payments: list[Any] = [source, *payments_in(source)]
    holders = [
        source,
        *(each.get("payment") for each in payments if isinstance(each, dict)),
        source.get("latest_charge"),
    ]
    for holder in holders:
        if isinstance(holder, dict):
            names = (_id_of(holder.get(field)) for field in ("payment_intent", "charge", "invoice"))
            yield from (name for name in names if name)
    match source:
        case {"object": "event", "data": {"object": dict(subject)}} if name := _id_of(subject):
            yield name


def _subscription_of(invoice: JSONObject) -> str | None:
    """Return the subscription of an invoice; before API version 2025-03-31 it was a field of the invoice."""
    match invoice:
        case {"parent": {"subscription_details": {"subscription": value}}} | {"subscription": value}:
            return _id_of(value)
        case _:
            return None


def _id_of(value: Any) -> str | None:
    if is_object(value):
        value = value["id"]
    return value if isinstance(value, str) else None
