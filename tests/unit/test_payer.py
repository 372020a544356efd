"""The payer's e-mail address, read from each kind of object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.recorded import VERSIONS, invoice_event, payment_intent_event, recorded, session_event
from webhook.events.payer import is_email, payer_email, payer_email_in

BUYER = "buyer@example.com"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name", ["checkout.session.completed", "invoice.paid", "charge.refunded", "charge.dispute.created"]
)
def test_recorded_object_names_its_payer(name: str, version: str) -> None:
    assert payer_email(recorded(name, version)["data"]["object"]) == BUYER


def test_payment_intent_has_the_address_of_its_receipt() -> None:
    assert payer_email(payment_intent_event(receipt_email=BUYER)["data"]["object"]) == BUYER


def test_expanded_charge_has_the_payers_address() -> None:
    intent = payment_intent_event(latest_charge={"id": "ch_1", "billing_details": {"email": BUYER}})["data"]["object"]
    session = session_event(customer_details=None, customer_email=None, payment_intent=intent)["data"]["object"]
    assert payer_email(intent) == payer_email(session) == BUYER


def test_typed_address_counts_before_the_prefilled_one() -> None:
    session = session_event(customer_details={"email": BUYER}, customer_email="prefilled@example.com")
    assert payer_email(session["data"]["object"]) == BUYER


@pytest.mark.parametrize("details", [None, [], "text", {}, {"email": None}, {"email": ""}, {"email": 5}])
def test_session_without_a_typed_address_has_the_prefilled_one(details: Any) -> None:
    session = session_event(customer_details=details, customer_email=BUYER)
    assert payer_email(session["data"]["object"]) == BUYER


@pytest.mark.parametrize(
    "value",
    ["", "buyer", "@", "a@", "a b@c", "a\0@b", "a\ud800@b", "a\x1b[2J@b", "a\x9b@b", "a\u202e@b", "a\u2028@b", "a@b@c"],
)
def test_text_that_cannot_be_stored_or_printed_is_no_address(value: str) -> None:
    assert not is_email(value)
    assert payer_email(invoice_event(customer_email=value)["data"]["object"]) is None


def test_longest_address_has_512_characters() -> None:
    assert is_email("a@" + 510 * "b")
    assert not is_email("a@" + 511 * "b")


def test_body_that_is_no_event_names_no_payer() -> None:
    assert payer_email_in(json.dumps(invoice_event())) == BUYER
    assert payer_email_in('{"id": "pi_1", "object": "event", "type": "billing.sale"}') is None
    assert payer_email_in("") is None
