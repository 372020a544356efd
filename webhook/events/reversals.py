"""Refunds and disputes to facts: the money taken so far, never the change by one event. Pure functions, no I/O."""

from __future__ import annotations

from webhook.events.facts import Facts, Ignored, Interpretation, RefundedTotal, Reversal
from webhook.events.fields import (
    JSONObject,
    UnexpectedShapeError,
    amount,
    currency,
    optional_id,
    required_id,
    signed_amount,
    word,
)
from webhook.events.lookups import ChargeRefunds, Resolve

_FAILED_REFUND = ("failed", "canceled")
_CLOSED_DISPUTE = ("won", "lost", "warning_closed", "prevented")


def refund(source: JSONObject) -> Interpretation:
    """Return the reversal of a refund: https://docs.stripe.com/api/refunds/object.

    The status of a refund may change back and forth, but a failure is final: version 2, with no money.
    """
    payment_id = _reversed_payment(source)
    if payment_id is None:
        return Ignored("no_payment")
    failed = source.get("status") in _FAILED_REFUND
    money = amount(source, "amount")
    return _reversal(source, payment_id, version=2 if failed else 1, money=0 if failed else money)


def charge(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the reversals of a refunded charge: https://docs.stripe.com/api/charges/object.

    This serves endpoints that do not get refund events. ``amount_refunded`` is a total, never a change.
    """
    payment_id = _reversed_payment(source | {"charge": source.get("id")})
    refunds = resolve(ChargeRefunds(required_id(source, "id")))
    if refunds is None and payment_id:
        return Facts((RefundedTotal(payment_id, amount(source, "amount_refunded")),))
    interpretations = [refund(each) for each in refunds or ()]
    facts = tuple(fact for each in interpretations if isinstance(each, Facts) for fact in each.facts)
    return Facts(facts) if facts else Ignored("no_refunds")


def dispute(source: JSONObject) -> Interpretation:
    """Return the reversal of a dispute: https://docs.stripe.com/api/disputes/object.

    The disputed amount counts by the share of the withdrawn money that was not reinstated. Balance transactions may be
    in another currency, at the rate of their day, so only their ratio counts. A won dispute takes nothing. A dispute
    that has withdrawn nothing, such as an inquiry, is ignored.
    """
    payment_id = _reversed_payment(source)
    entries = _balance_transactions(source)
    withdrawn = -sum(entry for entry in entries if entry < 0)
    if payment_id is None:
        return Ignored("no_payment")
    if withdrawn == 0:
        return Ignored("nothing_withdrawn")
    status = word(source, "status")
    money = amount(source, "amount")
    not_reinstated = max(withdrawn - sum(entry for entry in entries if entry > 0), 0)
    return _reversal(
        source,
        payment_id,
        version=2 * len(entries) + (status in _CLOSED_DISPUTE),
        money=0 if status == "won" else -(-money * not_reinstated // withdrawn),
    )


def _reversal(source: JSONObject, payment_id: str, *, version: int, money: int) -> Facts:
    reversal_id = required_id(source, "id")
    return Facts((Reversal(reversal_id, version, payment_id, money, currency(source)),))


def _reversed_payment(source: JSONObject) -> str | None:
    """Return the id of the reversed payment, or of the charge: very old integrations have no PaymentIntent."""
    return optional_id(source, "payment_intent") or optional_id(source, "charge")


def _balance_transactions(source: JSONObject) -> list[int]:
    """Return the amount of each entry: below 0 if withdrawn, above 0 if reinstated."""
    entries = source.get("balance_transactions")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnexpectedShapeError("balance_transactions")
    return [signed_amount(entry, "amount") for entry in entries]
