"""Deliveries to a worker with a wrong setting: what is parked, and what they leave alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.recorded import USER_ID, invoice_event, payment_intent_event, recorded, refund_event, session_event
from support.stored_rows import Admin, balance, parked, rows
from webhook.delivery import settle
from webhook.events.event import EventScope, read_event
from webhook.ledger.ledger import Ledger, Outcome

TEST, LIVE = EventScope(livemode=False), EventScope(livemode=True)
SUBSCRIPTION = session_event("checkout.session.completed.subscription", customer="cus_1")


def deliver(ledger: Ledger, event: dict[str, Any], scope: EventScope = TEST) -> Outcome:
    text = json.dumps(event)
    return settle(read_event(text), text, ledger, scope)


def thin(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event as a thin one, which only Stripe's API can complete."""
    path = f"/v1/payment_intents/{event['data']['object']['id']}"
    return {"id": event["id"], "object": "v2.core.event", "type": f"v1.{event['type']}", "livemode": False} | {
        "related_object": {"id": "pi_1", "type": "payment_intent", "url": path}
    }


def test_wrong_mode_keeps_the_known_reason_and_payment(ledger: Ledger, admin: Admin) -> None:
    event = session_event(payment_intent="pi_1")
    deliver(ledger, event)
    assert deliver(ledger, event, LIVE) == Outcome("parked", "wrong_mode")
    query = "select reason, payment_id from billing.parked_events"
    assert rows(admin, query) == [("unknown_user", "pi_1")]


def test_missing_key_keeps_the_known_reason_and_payment(ledger: Ledger, admin: Admin) -> None:
    event = payment_intent_event(id="pi_1")
    deliver(ledger, event)
    assert deliver(ledger, thin(event)) == Outcome("parked", "missing_api_key")
    query = "select reason, payment_id from billing.parked_events"
    assert rows(admin, query) == [("unknown_user", "pi_1")]


def test_corrected_mode_replaces_wrong_mode(ledger: Ledger, admin: Admin) -> None:
    event = payment_intent_event(id="pi_1")
    deliver(ledger, event, LIVE)
    deliver(ledger, thin(event))
    assert parked(admin) == [(event["id"], "missing_api_key")]
    deliver(ledger, event)
    assert parked(admin) == [(event["id"], "unknown_user")]


@pytest.mark.parametrize("event", [refund_event(payment_intent="pi_1", amount=500), recorded("charge.refunded")])
def test_wrong_mode_refund_of_a_settled_sale_stays_parked(
    ledger: Ledger, admin: Admin, buyer: str, event: dict[str, Any]
) -> None:
    """No other event reports what it says."""
    assert buyer
    event["data"]["object"]["payment_intent"] = "pi_1"
    sold = [session_event(payment_intent="pi_1"), payment_intent_event(id="pi_1")]
    deliver(ledger, sold[0])
    assert deliver(ledger, event | {"livemode": True}).name == "parked"
    deliver(ledger, sold[1])
    assert parked(admin) == [(event["id"], "wrong_mode")]


@pytest.mark.parametrize("event", [session_event(), invoice_event(), payment_intent_event(), SUBSCRIPTION])
def test_wrong_mode_event_of_an_erased_user_is_not_parked_again(
    ledger: Ledger, admin: Admin, buyer: str, event: dict[str, Any]
) -> None:
    """A redelivery must not bring the user's data back."""
    assert deliver(ledger, event, LIVE).name == "parked"
    admin.execute("select billing.erase_user(%s)", [buyer])
    assert deliver(ledger, event, LIVE) == Outcome("duplicate")
    assert parked(admin) == []


def test_user_reference_is_kept_with_the_payload_only(ledger: Ledger, admin: Admin) -> None:
    query = "select user_reference from billing.parked_events"
    deliver(ledger, session_event(user_id="order_1234"))
    assert rows(admin, query) == [("order_1234",)]
    admin.execute("select billing.resolve(event_id) from billing.parked_events")
    assert rows(admin, query) == [(None,)]


@pytest.mark.parametrize("reference", ["\x00", "\ud800", "two words", "x" * 256])
def test_unprintable_user_reference_is_not_stored(ledger: Ledger, admin: Admin, reference: str) -> None:
    deliver(ledger, session_event(user_id=reference))
    assert rows(admin, "select reason, user_reference from billing.parked_events") == [("unknown_user", None)]


def test_user_of_a_sale_parked_with_the_balance_unchanged(ledger: Ledger, admin: Admin, buyer: str) -> None:
    deliver(ledger, invoice_event(user_id=buyer, credits="ten"))
    assert rows(admin, "select user_reference from billing.parked_events") == [(USER_ID,)]
    assert balance(admin) == 0
