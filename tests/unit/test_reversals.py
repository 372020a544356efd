"""Refunds and disputes are interpreted as facts, without a database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.recorded import VERSIONS, dispute_event, recorded, refund_event
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Facts, Ignored, Interpretation, Reversal, Unresolvable
from webhook.events.interpret import interpret


def interpreted(event: dict[str, Any]) -> Interpretation:
    return interpret(read_event(json.dumps(event)), EventScope(livemode=False))


def reversal_of(event: dict[str, Any]) -> Reversal:
    interpretation = interpreted(event)
    assert isinstance(interpretation, Facts)
    [reversal] = interpretation.facts
    assert isinstance(reversal, Reversal)
    return reversal


def money_and_version(event: dict[str, Any]) -> tuple[int, int]:
    reversal = reversal_of(event)
    return reversal.money_amount, reversal.version


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("refund.created", VERSIONS[2], (1000, 1)),
        ("refund.updated", VERSIONS[2], (1000, 1)),
        ("refund.updated.canceled", VERSIONS[2], (0, 2)),
        ("refund.failed", VERSIONS[2], (0, 2)),
        ("charge.refund.updated", VERSIONS[2], (1000, 1)),
        ("refund.created", VERSIONS[1], (1000, 1)),
        ("refund.failed", VERSIONS[1], (0, 2)),
        ("charge.refund.updated", VERSIONS[0], (1000, 1)),
        ("charge.refund.updated.failed", VERSIONS[0], (0, 2)),
        ("charge.refund.updated.canceled", VERSIONS[0], (0, 2)),
    ],
)
def test_refund_reverses_its_amount_unless_failed_or_canceled(
    name: str, version: str, expected: tuple[int, int]
) -> None:
    event = recorded(name, version)
    refund, reversal = event["data"]["object"], reversal_of(event)
    assert (reversal.money_amount, reversal.version) == expected
    assert (reversal.id, reversal.payment_id, reversal.currency) == (refund["id"], refund["payment_intent"], "usd")


@pytest.mark.parametrize("status", ["pending", "requires_action", "succeeded", None])
def test_refund_with_any_other_status_reverses_its_amount(status: str | None) -> None:
    assert money_and_version(refund_event(status=status)) == (1000, 1)


def test_refund_without_a_payment_intent_belongs_to_its_charge() -> None:
    assert reversal_of(refund_event(payment_intent=None, charge="ch_1")).payment_id == "ch_1"


def test_refund_without_a_payment_is_ignored() -> None:
    assert interpreted(refund_event(payment_intent=None, charge=None)) == Ignored("no_payment")


@pytest.mark.parametrize("fields", [{"amount": -1}, {"currency": None}, {"payment_intent": 7}, {"amount": "5"}])
def test_refund_with_an_unexpected_field_value_is_unreadable(fields: dict[str, Any]) -> None:
    assert interpreted(refund_event(**fields)) == Unresolvable("unreadable")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("charge.dispute.created", (1000, 2)),
        ("charge.dispute.funds_withdrawn", (1000, 2)),
        ("charge.dispute.closed.lost", (1000, 3)),
        ("charge.dispute.closed.won", (0, 5)),
        ("charge.dispute.funds_reinstated", (0, 5)),
        ("charge.dispute.updated.partial", (600, 5)),
    ],
)
def test_dispute_reverses_the_withdrawn_amount(name: str, expected: tuple[int, int], version: str) -> None:
    """Reinstated funds are subtracted."""
    assert money_and_version(recorded(name, version)) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_dispute_that_is_an_inquiry_is_ignored(version: str) -> None:
    assert interpreted(recorded("charge.dispute.created.inquiry", version)) == Ignored("nothing_withdrawn")


@pytest.mark.parametrize(
    ("entries", "amount", "expected"),
    [
        ([-1000], 1000, 1000),
        ([-1000], 400, 400),
        ([-1000], 2500, 2500),
        ([-1000, 1000], 1000, 0),
        ([-1000, 1], 1000, 999),
        ([-3000, 1000], 1000, 667),
        ([-1000, 250, 250], 1000, 500),
        ([-600, -400, 300], 1000, 700),
        ([-1000, 1200], 1000, 0),
        ([-(2**52), 1], 2**53 - 1, 2**53 - 2),
    ],
)
def test_dispute_reverses_the_share_not_reinstated(entries: list[int], amount: int, expected: int) -> None:
    event = dispute_event(balance_transactions=entries, amount=amount, status="needs_response")
    assert money_and_version(event) == (expected, 2 * len(entries))


def test_won_dispute_reverses_nothing() -> None:
    """A partly reinstated amount does not change this."""
    event = dispute_event(balance_transactions=[-1000, 900], status="won")
    assert money_and_version(event) == (0, 5)


def test_dispute_of_unknown_status_uses_balance_transactions() -> None:
    assert money_and_version(dispute_event(status="appeal_submitted")) == (1000, 2)


@pytest.mark.parametrize("entries", [None, {}, [None], [{"amount": "5"}], [{"amount": True}], [{}]])
def test_dispute_with_malformed_transactions_is_unreadable(entries: Any) -> None:
    event = dispute_event()
    event["data"]["object"]["balance_transactions"] = entries
    assert interpreted(event) == Unresolvable("unreadable")
