"""What the stored body of a parked event reports about credits and money. Pure functions, without requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeGuard

from webhook.events.event import Event, EventScope, read_event
from webhook.events.facts import Facts, Interpretation, Reversal, Sale, Unresolvable
from webhook.events.fields import CURRENCY, LARGEST_AMOUNT, LATEST, JSONObject
from webhook.events.interpret import interpret
from webhook.events.signature import InvalidDeliveryError
from webhook.explain.records import MergedSale
from webhook.explain.wording import counted, money, weekday

_MONEY = {
    "checkout.session": "amount_total",
    "payment_intent": "amount_received",
    "invoice": "amount_paid",
}
"""The money of the objects that are sales."""


@dataclass(frozen=True)
class Reported:
    """What an event reports. It contains no personal data. ``None`` stands for what the event does not contain."""

    kind: Literal["sale", "refund", "dispute"] = "sale"
    credits: int | None = None
    money_amount: int | None = None
    """In minor units of ``currency``."""
    currency: str | None = None
    paid: bool | None = None
    """Whether the sale is paid."""
    at: datetime | None = None
    """When it happened at Stripe."""

    @property
    def sentence(self) -> str:
        """Return it for people, such as ``It reports 250 credits for 20.00 USD, paid on Tuesday, 2026-11-24.``."""
        on = f" on {weekday(self.at)}" if self.at else ""
        if self.money_amount is None and self.credits is None:
            return f"It happened{on}." if on else "It reports neither credits nor money."
        state = {True: ", paid", False: ", not paid yet", None: ""}[self.paid]
        return f"It reports {self._what}{state}{on}."

    @property
    def _what(self) -> str:
        price = money(self.money_amount, self.currency)
        if self.kind != "sale":
            return f"a {self.kind} of {price}"
        if self.credits is None:
            return f"{price} without a number of credits"
        return counted(self.credits, "credit") + (f" for {price}" if self.money_amount is not None else "")


def reported(payload: str | None) -> Reported | None:
    """Return what the body of an event reports; ``None`` for a dropped body, or one that reports nothing."""
    if payload is None:
        return None
    try:
        event = read_event(payload)
    except InvalidDeliveryError:
        return None
    found = replace(_facts(event) or _raw(event.object), at=_time(_created(payload), event.object))
    return found if found != Reported() else None


def of_merged_sale(sale: MergedSale) -> Reported:
    """Return what all events of a sale together report, for one that is parked without an event."""
    return Reported("sale", sale.credits, sale.money_amount, sale.currency, sale.paid)


def _facts(event: Event) -> Reported | None:
    """Return the sale or reversal that the event states, as if it were one of the worker's own mode and account."""
    interpretation = interpret(replace(event, livemode=False, account=None), EventScope(livemode=False))
    for fact in _stated(interpretation):
        if isinstance(fact, Sale):
            return Reported("sale", fact.credits, fact.money_amount, fact.currency, fact.paid)
        if isinstance(fact, Reversal):
            kind: Literal["refund", "dispute"] = "dispute" if fact.id.startswith(("dp_", "du_")) else "refund"
            return Reported(kind, None, fact.money_amount, fact.currency)
    return None


def _stated(interpretation: Interpretation) -> tuple[Any, ...]:
    return interpretation.facts if isinstance(interpretation, Facts | Unresolvable) else ()


def _raw(source: JSONObject) -> Reported:
    """Return the money of an object whose sale cannot be read without requests, such as an invoice of many lines."""
    money, currency = source.get(_MONEY.get(str(source.get("object")), "")), source.get("currency")
    if not (_is_number(money, LARGEST_AMOUNT) and isinstance(currency, str) and CURRENCY.fullmatch(currency)):
        return Reported()
    paid = "paid" in (source.get("payment_status"), source.get("status")) or source.get("status") == "succeeded"
    return Reported("sale", None, money, currency, paid)


def _created(payload: str) -> Any:
    """Return the event's own time, ``None`` in a body that reconciliation made."""
    try:
        return json.loads(payload).get("created")
    except (ValueError, RecursionError):
        return None


def _time(created: Any, source: JSONObject) -> datetime | None:
    """Return the first time that is known: the event's, the payment's, the object's.

    A session is created before it is paid, so its own time comes last.
    """
    payment, status = source.get("payment_intent"), source.get("status_transitions")
    payment = payment if isinstance(payment, dict) else source
    of_charge, of_invoice = _field(payment.get("latest_charge"), "created"), _field(status, "paid_at")
    for value in (created, of_charge, of_invoice, payment.get("created"), source.get("created")):
        if _is_number(value, LATEST):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str) and (at := _read_time(value)):
            return at
    return None


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _read_time(text: str) -> datetime | None:
    """Return the time of a thin event, which is text."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _is_number(value: Any, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
