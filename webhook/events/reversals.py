"""Refunds and disputes to facts: what money is gone now, never what an event took. Pure functions, no I/O."""

from __future__ import annotations

from webhook.events.facts import Facts, Ignored, Interpretation, RefundedTotal, Reversal
from webhook.events.fields import JSONObject, UnexpectedShapeError, amount, optional_id, required_id, word
from webhook.events.lookups import ChargeRefunds, Resolve

_FAILED_REFUND = ("failed", "canceled")
_CLOSED_DISPUTE = ("won", "lost", "warning_closed", "prevented")


def refund(source: JSONObject) -> Interpretation:
    """https://docs.stripe.com/api/refunds/object.

    Its status goes to and fro while it is under way, but a failure is for ever: version 2, no money.
    """
    payment_id = _payment_of(source)
    if payment_id is None:
        return Ignored("no_payment")
    failed = source.get("status") in _FAILED_REFUND
    money = amount(source, "amount")
    return _reversal(source, payment_id, version=2 if failed else 1, money=0 if failed else money)


def charge(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the refunds of a refunded charge: https://docs.stripe.com/api/charges/object.

    For endpoints of which no refund is told itself. ``amount_refunded`` is a sum, never a step.
    """
    payment_id = _payment_of(source | {"charge": source.get("id")})
    refunds = resolve(ChargeRefunds(required_id(source, "id")))
    if refunds is None and payment_id:
        return Facts((RefundedTotal(payment_id, amount(source, "amount_refunded")),))
    told = [refund(each) for each in refunds or ()]
    facts = tuple(fact for each in told if isinstance(each, Facts) for fact in each.facts)
    return Facts(facts) if facts else Ignored("no_refunds")


def dispute(source: JSONObject) -> Interpretation:
    """https://docs.stripe.com/api/disputes/object.

    The disputed amount counts by the share of the withdrawn money that has not come back. The balance transactions may
    be in another currency, at a rate of their day: only their ratio means something. A dispute that was won costs
    nothing. One that has withdrawn nothing, such as an inquiry, says nothing.
    """
    payment_id = _payment_of(source)
    entries = _balance_transactions(source)
    withdrawn = -sum(entry for entry in entries if entry < 0)
    if payment_id is None:
        return Ignored("no_payment")
    if withdrawn == 0:
        return Ignored("nothing_withdrawn")
    status = word(source, "status")
    money = amount(source, "amount")
    kept_from_us = max(withdrawn - sum(entry for entry in entries if entry > 0), 0)
    return _reversal(
        source,
        payment_id,
        version=2 * len(entries) + (status in _CLOSED_DISPUTE),
        money=0 if status == "won" else -(-money * kept_from_us // withdrawn),
    )


def _reversal(source: JSONObject, payment_id: str, *, version: int, money: int) -> Facts:
    reversal_id, currency = required_id(source, "id"), word(source, "currency")
    return Facts((Reversal(reversal_id, version, payment_id, money, currency),))


def _payment_of(source: JSONObject) -> str | None:
    """Return the payment that is reversed; very old flows have a charge alone."""
    return optional_id(source, "payment_intent") or optional_id(source, "charge")


def _balance_transactions(source: JSONObject) -> list[int]:
    """Return what each entry took (below 0) or gave back."""
    entries = source.get("balance_transactions")
    if not isinstance(entries, list):
        raise UnexpectedShapeError("balance_transactions")
    amounts = [entry.get("amount") if isinstance(entry, dict) else None for entry in entries]
    known = [entry for entry in amounts if type(entry) is int]
    if len(known) < len(entries):
        raise UnexpectedShapeError("balance_transactions")
    return known
