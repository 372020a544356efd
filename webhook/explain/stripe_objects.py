"""Stripe's objects as candidates: which payment, whose, how much and in which state. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from webhook.explain.candidates import Candidate

JSONObject = Mapping[str, Any]


def candidate_of(source: JSONObject) -> Candidate | None:
    """Return a payment, charge, session or invoice as a candidate; ``None`` for any other object."""
    match source.get("object"):
        case "charge":
            return _candidate(source, _id(source, "payment_intent"), _payer(source), "amount", _charge_state(source))
        case "payment_intent":
            charge = _expanded(source, "latest_charge")
            state = _charge_state(charge) if charge else _text(source, "status")
            payer = _payer(charge) or _text(source, "receipt_email")
            return _candidate(source, None, payer, "amount", state)
        case "checkout.session":
            payer = _text(_expanded(source, "customer_details"), "email")
            payment_id = _id(source, "payment_intent") or _id(source, "invoice")
            return _candidate(source, payment_id, payer, "amount_total", _text(source, "payment_status"))
        case "invoice":
            return _candidate(source, None, _text(source, "customer_email"), "total", _text(source, "status"))
        case _:
            return None


def named_object(source: JSONObject) -> tuple[str, str] | None:
    """Return the field and the id of the payment that a refund, dispute, invoice payment or subscription is for."""
    holder = _expanded(source, "payment") if source.get("object") == "invoice_payment" else source
    for named, field in ((holder, "payment_intent"), (source, "charge"), (source, "invoice")):
        if found := _id(named, field):
            return field, found
    return None


def _candidate(
    source: JSONObject, payment_id: str | None, email: str | None, amount: str, state: str | None
) -> Candidate:
    object_id, cents, created = str(source.get("id")), source.get(amount), source.get("created")
    return Candidate(
        payment_id=payment_id or object_id,
        user_id=_user(source),
        email=email or None,
        amount=cents if isinstance(cents, int) else None,
        currency=_text(source, "currency"),
        at=datetime.fromtimestamp(created, UTC) if isinstance(created, int) else None,
        state=state or "",
        is_known=False,
        object_id=object_id if payment_id else None,
    )


def _user(source: JSONObject) -> str | None:
    details = _expanded(_expanded(source, "parent"), "subscription_details")
    return (
        _text(_expanded(source, "metadata"), "user_id")
        or _text(source, "client_reference_id")
        or _text(_expanded(details, "metadata"), "user_id")
    )


def _payer(charge: JSONObject) -> str | None:
    return _text(_expanded(charge, "billing_details"), "email") or _text(charge, "receipt_email")


def _charge_state(charge: JSONObject) -> str:
    states = [_text(charge, "status") or ""]
    if charge.get("refunded"):
        states.append("refunded")
    elif charge.get("amount_refunded"):
        states.append("partly refunded")
    if charge.get("disputed"):
        states.append("disputed")
    return ", ".join(states)


def _expanded(source: JSONObject, field: str) -> JSONObject:
    value = source.get(field)
    return value if isinstance(value, dict) else {}


def _id(source: JSONObject, field: str) -> str | None:
    value = source.get(field)
    value = value.get("id") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _text(source: JSONObject, field: str) -> str | None:
    value = source.get(field)
    return value if isinstance(value, str) else None
