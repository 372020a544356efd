"""`webhook explain --stripe`: what the database does not know, found at a stand-in for Stripe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from support.recorded import USER_ID, recorded, refund_event, session_event
from support.roles import ALICE
from support.shop import Shop

PAID_AT = int(datetime(2026, 11, 24, 9, 30, tzinfo=UTC).timestamp())
PAYER = "payer@work.example"


def charge(charge_id: str = "ch_1", payment_id: str = "pi_1", **fields: Any) -> dict[str, Any]:
    """A charge of 10.00 dollars with a card that ends with 4242."""
    source = recorded("charge.refunded")["data"]["object"] | {
        "id": charge_id,
        "payment_intent": payment_id,
        "amount": 1000,
        "amount_refunded": 0,
        "refunded": False,
        "created": PAID_AT,
        "currency": "usd",
        "receipt_number": "1230-7299",
        "status": "succeeded",
    }
    source["billing_details"] = {"email": PAYER}
    source["payment_method_details"] = {"type": "card", "card": {"last4": "4242"}}
    return source | fields


def add(shop: Shop, *objects: dict[str, Any]) -> None:
    for source in objects:
        shop.stripe.objects[source["id"]] = source


def session(**fields: Any) -> dict[str, Any]:
    event = session_event(id="cs_1", payment_intent="pi_1", credits=100, amount=1000, user_id=ALICE, **fields)
    return event["data"]["object"] | {"created": PAID_AT, "customer_details": {"email": PAYER}}


def explained(shop: Shop, *query: str) -> dict[str, Any]:
    result = shop.run("explain", "--json", "--stripe", *query)
    assert isinstance(result.exception, SystemExit | None), result.exception
    return json.loads(result.stdout) | {"exit_code": result.exit_code}


def test_payment_that_only_stripe_has_is_to_be_reconciled(shop: Shop) -> None:
    add(shop, charge())
    found = explained(shop, "ch_1")
    assert (found["verdict"]["code"], found["exit_code"]) == ("not_known", 1)
    assert found["verdict"]["remedy"] == "reconcile this payment: webhook reconcile pi_1"
    assert found["candidates"][0]["email"] == PAYER


def test_payer_address_finds_a_sale_on_another_account(shop: Shop) -> None:
    """The customer paid with the address of another account: "I paid with my work e-mail"."""
    shop.sign_up(ALICE)
    shop.deliver(session_event(payment_intent="pi_1", credits=100, amount=1000, user_id=ALICE))
    add(shop, session())
    found = explained(shop, PAYER, "10", "2026-11-24")
    assert (found["verdict"]["code"], found["kind"], found["exit_code"]) == ("granted", "sale", 1)
    assert found["verdict"]["note"] == f"Paid by {PAYER}; the account's address is {ALICE}@example.com."
    assert found["story"]["user"]["id"] == ALICE
    assert any(
        "checkout/sessions with customer_details[email] payer@work.example" in each for each in found["searched"]
    )


def test_payer_without_purchases_paid_for_another_account(shop: Shop) -> None:
    """The address belongs to an account that bought nothing; the payment went to another one."""
    shop.sign_up(ALICE)
    shop.admin.execute("update auth.users set email = %s where id = %s", [PAYER, ALICE])
    shop.deliver(session_event(payment_intent="pi_1", credits=100, amount=1000))
    add(shop, session())
    found = explained(shop, PAYER)
    assert (found["verdict"]["code"], found["story"]["user"]["id"]) == ("granted", USER_ID)


def test_last4_with_amount_and_day_finds_the_payment(shop: Shop) -> None:
    add(shop, charge(), charge("ch_2", "pi_2", created=PAID_AT - 86_400), charge("ch_3", "pi_3", amount=999))
    found = explained(shop, "4242", "$10.00", "2026-11-24")
    assert [each["payment_id"] for each in found["candidates"]] == ["pi_1"]


def test_receipt_number_of_a_charge_needs_its_day(shop: Shop) -> None:
    add(shop, charge(), charge("ch_2", "pi_2", receipt_number="1230-7300"))
    without = explained(shop, "1230-7299")
    assert without["candidates"] == []
    assert "add the day of the payment" in " ".join(without["searched"])
    assert without["dashboard"] == "https://dashboard.stripe.com/search?query=1230-7299"
    assert [each["payment_id"] for each in explained(shop, "1230-7299", "2026-11-24")["candidates"]] == ["pi_1"]


@pytest.mark.parametrize("field", ["number", "receipt_number"])
def test_numbers_of_an_invoice_find_it(shop: Shop, field: str) -> None:
    invoice = recorded("invoice.paid")["data"]["object"] | {"id": "in_1", field: "ABCD1234-0007"}
    add(shop, invoice)
    assert [each["payment_id"] for each in explained(shop, "ABCD1234-0007")["candidates"]] == ["in_1"]


def test_event_leads_to_the_payment_of_its_object(shop: Shop) -> None:
    shop.deliver(session_event(payment_intent="pi_1", credits=100, amount=1000))
    shop.stripe.add_events(refund_event(event_id="evt_9", id="re_9", payment_intent="pi_1"))
    add(shop, charge(), recorded("payment_intent.succeeded")["data"]["object"] | {"id": "pi_1"})
    found = explained(shop, "evt_9")
    assert (found["kind"], found["story"]["payment_id"]) == ("sale", "pi_1")


def test_session_of_a_settled_payment_is_found(shop: Shop) -> None:
    """The ledger does not keep the ids of paid sessions."""
    shop.deliver(session_event(id="cs_1", payment_intent="pi_1", credits=100, amount=1000))
    add(shop, session())
    assert "search with the payment's id, or with --stripe" in shop.run("explain", "cs_1").stdout
    found = explained(shop, "cs_1")
    assert (found["kind"], found["story"]["payment_id"]) == ("sale", "pi_1")


def test_several_payments_are_compared(shop: Shop) -> None:
    shop.deliver(session_event(payment_intent="pi_1", credits=100, amount=1000))
    add(shop, charge(), charge("ch_2", "pi_2"))
    found = explained(shop, "4242", "10", "2026-11-24")
    assert (found["verdict"]["code"], found["exit_code"]) == ("candidates", 1)
    states = {each["payment_id"]: (each["user_id"], each["state"]) for each in found["candidates"]}
    assert states["pi_1"] == (USER_ID, "succeeded; granted")
    assert states["pi_2"][1] == "succeeded; not known here"
    table = shop.run("explain", "--stripe", "4242", "10", "2026-11-24").stdout
    assert "ACCOUNT" in table
    assert PAYER in table


def test_missing_permission_is_reported_and_not_fatal(shop: Shop) -> None:
    shop.stripe.error_status = lambda path, _: 403 if path == "/v1/charges/search" else None
    found = explained(shop, "4242", "10", "2026-11-24")
    assert found["exit_code"] == 1
    assert "the key lacks a permission: add Charges and Refunds: Read" in " ".join(found["searched"])


def test_search_at_stripe_changes_nothing(shop: Shop) -> None:
    add(shop, charge(), session())
    before = shop.contents()
    explained(shop, PAYER)
    explained(shop, "pi_1")
    assert shop.contents() == before


def test_stripe_without_a_key_is_an_error(shop: Shop) -> None:
    result = shop.run("explain", "--stripe", "pi_1", STRIPE_API_KEY="")
    assert result.exit_code == 2
    assert "STRIPE_API_KEY" in result.stderr
