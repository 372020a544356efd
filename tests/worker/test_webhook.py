"""POST /webhook: sales and unrelated events, from the delivery to the stored rows."""

from __future__ import annotations

from typing import Any

import pytest

from support.delivery import Post
from support.recorded import (
    USER_ID,
    VERSIONS,
    dispute_event,
    invoice_event,
    payment_intent_event,
    recorded,
    refund_event,
    session_event,
)
from support.stored_rows import Admin, balance, rows, stored

# Sales


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name", ["checkout.session.completed", "checkout.session.async_payment_succeeded", "payment_intent.succeeded"]
)
def test_sale_of_each_event_and_version_is_recorded(post: Post, admin: Admin, name: str, version: str) -> None:
    answer = post(recorded(name, version))
    assert (answer.status_code, answer.json) == (200, {"outcome": "recorded"})
    assert balance(admin) == 100


def test_recorded_sale_fills_every_column_of_its_row(post: Post, admin: Admin) -> None:
    event = session_event()
    post(event)
    payment_id = event["data"]["object"]["payment_intent"]
    assert rows(
        admin,
        "select user_id::text, amount, type::text, stripe_id, payment_id, money_amount, currency, event_id"
        " from public.transactions",
    ) == [(USER_ID, 100, "PURCHASE", payment_id, payment_id, 1000, "usd", event["id"])]


def test_redelivered_sale_is_a_duplicate(post: Post, admin: Admin) -> None:
    post(session_event())
    assert post(session_event()).json == {"outcome": "duplicate"}
    assert balance(admin) == 100


def test_sale_with_several_events_is_granted_once(post: Post, admin: Admin) -> None:
    payment_id = session_event()["data"]["object"]["payment_intent"]
    again = session_event("checkout.session.async_payment_succeeded", payment_intent=payment_id)
    answers = [post(event).json for event in (session_event(), again, payment_intent_event(id=payment_id))]
    assert answers == [{"outcome": "recorded"}, {"outcome": "duplicate"}, {"outcome": "duplicate"}]
    assert balance(admin) == 100


def test_unpaid_sale_is_granted_when_its_payment_succeeds(post: Post, admin: Admin) -> None:
    assert post(recorded("checkout.session.completed.unpaid")).json == {"outcome": "recorded"}
    assert balance(admin) == 0
    assert post(recorded("checkout.session.async_payment_succeeded")).json == {"outcome": "recorded"}
    assert balance(admin) == 100


def test_unpaid_session_after_its_payment_is_a_duplicate(post: Post, admin: Admin) -> None:
    post(recorded("checkout.session.async_payment_succeeded"))
    assert post(recorded("checkout.session.completed.unpaid")).json == {"outcome": "duplicate"}
    assert balance(admin) == 100


def test_sale_without_a_payment_has_the_id_of_its_session(post: Post, admin: Admin) -> None:
    event = recorded("checkout.session.completed.no_payment_required")
    post(event)
    assert rows(admin, "select stripe_id, money_amount from public.transactions") == [
        (event["data"]["object"]["id"], 0)
    ]


@pytest.mark.parametrize("captured_first", [True, False])
def test_manual_capture_is_granted_with_the_amount_received(post: Post, admin: Admin, captured_first: bool) -> None:  # noqa: FBT001
    capture = recorded("payment_intent.succeeded.manual_capture")
    session = session_event(payment_status="unpaid", payment_intent=capture["data"]["object"]["id"])
    for event in (capture, session) if captured_first else (session, capture):
        assert post(event).json == {"outcome": "recorded"}
    assert rows(admin, "select amount, money_amount from public.transactions") == [(100, 600)]


def test_sale_takes_the_credits_of_its_payment_intent(post: Post, admin: Admin) -> None:
    """A correction row replaces the different credits of the session."""
    event = session_event(credits=90)
    post(event)
    post(payment_intent_event(id=event["data"]["object"]["payment_intent"]))
    assert rows(admin, "select stripe_id, type::text, amount from public.transactions order by amount desc") == [
        (event["data"]["object"]["payment_intent"], "PURCHASE", 90),
        (event["data"]["object"]["payment_intent"] + ":3", "REFUND", 10),
    ]


def test_sale_granted_manually_is_reversed_by_its_refund(post: Post, admin: Admin) -> None:
    post(session_event(credits="100.0", payment_intent="pi_hand"))
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " values (%s, 100, 'PURCHASE', 'pi_hand', 'pi_hand', 1000, 'usd')",
        [USER_ID],
    )
    post(refund_event(payment_intent="pi_hand", amount=1000))
    assert balance(admin) == 0


def test_reversal_inserted_by_another_program_counts_once(post: Post, admin: Admin) -> None:
    row = "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, -100, 'REFUND', 're_hand')"
    admin.execute(row, [USER_ID])
    refund = refund_event(id="re_hand", payment_intent="pi_hand", amount=1000)
    for event in (refund, session_event(payment_intent="pi_hand"), session_event(payment_intent="pi_hand"), refund):
        post(event)
    assert balance(admin) == 0


def test_unpaid_session_of_a_manual_sale_changes_nothing(post: Post, admin: Admin) -> None:
    """Another program inserted the row of the sale."""
    row = "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, 50, 'PURCHASE', 'pi_hand')"
    admin.execute(row, [USER_ID])
    post(session_event("checkout.session.completed.unpaid", payment_intent="pi_hand"))
    assert balance(admin) == 50


def test_merge_by_an_older_invoice_has_the_id_of_the_invoice(post: Post, admin: Admin) -> None:
    """Invoices of older API versions name their PaymentIntent, which merges two sales into one."""
    post(session_event(payment_intent="pi_1"))
    post(invoice_event(id="in_1"))
    older = invoice_event(id="in_1", event_id="evt_older")
    older["data"]["object"]["payment_intent"] = "pi_1"
    post(older)
    assert rows(admin, "select stripe_id, amount from public.transactions where type = 'REFUND'") == [
        ("in_1:merge", -100)
    ]


def test_row_inserted_by_another_program_counts_as_the_sale(post: Post, admin: Admin) -> None:
    event = session_event()
    payment_id = event["data"]["object"]["payment_intent"]
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, 100, 'PURCHASE', %s)",
        [USER_ID, payment_id],
    )
    assert post(event).status_code == 200
    assert balance(admin) == 100


def test_sale_with_hostile_strings_in_unused_fields_is_recorded(post: Post, admin: Admin) -> None:
    event = session_event(success_url="\x00\ud800", event_id="evt_\x00") | {"api_version": "\udfff"}
    assert post(event).json == {"outcome": "recorded"}
    assert balance(admin) == 100


# Unrelated events


@pytest.mark.parametrize(
    "event",
    [
        recorded("checkout.session.completed.setup"),
        recorded("checkout.session.async_payment_failed"),
        recorded("customer.created"),
        session_event(user_id=None, credits=None),
        session_event(credits=0),
        session_event() | {"account": "acct_1"},
        session_event() | {"type": "\x00\ud800"},
        dispute_event(currency=None) | {"type": "charge.dispute.\x00"},
    ],
)
def test_unrelated_event_is_ignored_and_not_stored(post: Post, admin: Admin, event: dict[str, Any]) -> None:
    answer = post(event)
    assert answer.json is not None
    assert (answer.status_code, answer.json["outcome"]) == (200, "ignored")
    assert stored(admin) == 0
