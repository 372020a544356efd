"""What the stored body of a parked event reports, without a database and without requests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.project import EVENTS
from support.recorded import NEWEST, invoice_event, payment_intent_event, recorded, refund_event, session_event
from webhook.explain.reported import Reported, reported

PAID_AT = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)  # a Wednesday
PAID = int(PAID_AT.timestamp())


def body(event: dict[str, Any], **fields: Any) -> str:
    return json.dumps(event | {"created": PAID} | fields)


def session(**fields: Any) -> dict[str, Any]:
    return session_event(**{"credits": 250, "amount": 2000, "currency": "usd", "user_id": None} | fields)


SENTENCES: dict[str, tuple[str, str]] = {
    "session": (body(session()), "It reports 250 credits for 20.00 USD, paid on Wednesday, 2026-11-25."),
    "session without credits": (
        body(session(credits=None)),
        "It reports 20.00 USD without a number of credits, paid on Wednesday, 2026-11-25.",
    ),
    "session that is not paid": (
        body(session(payment_status="unpaid")),
        "It reports 250 credits for 20.00 USD, not paid yet on Wednesday, 2026-11-25.",
    ),
    "another mode": (
        body(session(), livemode=True, account="acct_9"),
        "It reports 250 credits for 20.00 USD, paid on Wednesday, 2026-11-25.",
    ),
    "payment": (
        body(payment_intent_event(credits=1, amount=1000, currency="jpy")),
        "It reports 1 credit for 1,000 JPY, paid on Wednesday, 2026-11-25.",
    ),
    "invoice": (
        body(invoice_event(credits=None, user_id=None, amount_paid=2000, currency="usd")),
        "It reports 20.00 USD without a number of credits, paid on Wednesday, 2026-11-25.",
    ),
    "refund": (
        body(refund_event(amount=550, currency="usd")),
        "It reports a refund of 5.50 USD on Wednesday, 2026-11-25.",
    ),
    "thin event": (
        json.dumps(
            {"object": "v2.core.event", "id": "evt_1", "type": "v1.invoice.paid", "created": "2026-11-25T09:30:00.000Z"}
        ),
        "It happened on Wednesday, 2026-11-25.",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_event_reports_credits_money_and_day(name: str) -> None:
    payload, sentence = SENTENCES[name]
    found = reported(payload)
    assert found
    assert (found.sentence, found.at) == (sentence, PAID_AT)


def test_body_of_reconciliation_has_the_time_of_payment() -> None:
    """It has no time of its own, and its session was created before the payment."""
    payment = {"id": "pi_1", "created": PAID - 60, "latest_charge": {"created": PAID}}
    event = session(payment_intent=payment, created=PAID - 86_400)
    del event["created"]
    assert reported(json.dumps(event)).at == PAID_AT


@pytest.mark.parametrize(
    "payload",
    [None, "", "no json", "[]", "{}", "[" * 100_000, '{"id": "pi_1", "object": "event", "type": "billing.sale"}'],
)
def test_body_that_reports_nothing_is_none(payload: str | None) -> None:
    assert reported(payload) is None


def test_event_of_another_kind_has_a_time_only() -> None:
    event = {"id": "evt_1", "type": "customer.created", "data": {"object": {"email": "a@b.example"}}}
    assert reported(body(event)) == Reported(at=PAID_AT)


def test_event_without_money_and_time_has_a_sentence() -> None:
    assert Reported().sentence == "It reports neither credits nor money."


@pytest.mark.parametrize("name", sorted(path.stem for path in (EVENTS / NEWEST).glob("*.json")))
def test_recorded_event_reports_nothing_personal(name: str) -> None:
    """Viewers see it, who may not see bodies."""
    event = recorded(name)
    found = reported(json.dumps(event))
    assert found
    shown = {each for each in vars(found).values() if isinstance(each, str)}
    assert shown <= {"sale", "refund", "dispute", str(event.get("data", {}).get("object", {}).get("currency"))}


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)
FIELDS = ("created", "object", "amount_total", "currency", "payment_status", "payment_intent", "metadata", "id")


@given(name=st.sampled_from(FIELDS), value=ANY, created=ANY)
def test_any_value_of_a_field_is_safe(name: str, value: Any, created: Any) -> None:
    event = session()
    event["data"]["object"][name] = value
    found = reported(json.dumps(event | {"created": created}))
    assert found is None or found.sentence.endswith(".")
