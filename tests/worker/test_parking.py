"""Deliveries that cannot be resolved are parked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.databases import Database
from support.delivery import Post
from support.recorded import USER_ID, payment_intent_event, session_event
from support.stored_rows import Admin, balance, parked, rows
from webhook.events.event import Event
from webhook.events.facts import PAYMENT_INTENT, Sale
from webhook.ledger.ledger import Ledger

UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (session_event() | {"livemode": True}, "wrong_mode"),
        (session_event(currency=None), "unreadable"),
        (session_event(user_id=None), "missing_user"),
        (session_event(credits="-5"), "invalid_credits"),
        (session_event(user_id="42"), "unknown_user"),
        (session_event(user_id=UNKNOWN_USER), "unknown_user"),
        (session_event("checkout.session.completed.unpaid", user_id=UNKNOWN_USER), "unknown_user"),
        (payment_intent_event(user_id=None), "missing_user"),
    ],
)
def test_unresolvable_event_is_parked_with_its_reason(
    post: Post, admin: Admin, event: dict[str, Any], reason: str
) -> None:
    answer = post(event)
    assert (answer.status_code, answer.json) == (200, {"outcome": "parked", "reason": reason})
    assert parked(admin) == [(event["id"], reason)]
    assert balance(admin) == 0


def test_parked_event_keeps_its_exact_body(post: Post, admin: Admin) -> None:
    body = json.dumps(session_event(user_id=None), indent=3).replace('"buyer', r'"\u0000\ud800buyer').encode()
    assert post(body).json == {"outcome": "parked", "reason": "missing_user"}
    assert rows(admin, "select payload::text from billing.parked_events") == [(body.decode(),)]


def test_parked_event_redelivered_is_stored_once(post: Post, admin: Admin) -> None:
    for _ in range(2):
        assert post(session_event(user_id=UNKNOWN_USER)).json == {"outcome": "parked", "reason": "unknown_user"}
    assert len(parked(admin)) == 1


@pytest.mark.parametrize("session_first", [True, False])
def test_sale_split_over_two_events_is_settled_by_the_second(
    post: Post,
    admin: Admin,
    session_first: bool,  # noqa: FBT001
) -> None:
    session = session_event(credits=None)
    intent = payment_intent_event(id=session["data"]["object"]["payment_intent"], user_id=None)
    first, second = (session, intent) if session_first else (intent, session)
    assert post(first).json["outcome"] == "parked"  # type: ignore[index]
    assert post(second).json == {"outcome": "recorded"}
    assert (balance(admin), parked(admin)) == (100, [])


@pytest.mark.parametrize("bad", [{"credits": "ten"}, {"user_id": UNKNOWN_USER}, {"credits": "ten", "user_id": None}])
@pytest.mark.parametrize("bad_first", [True, False])
def test_sale_settled_by_another_event_parks_nothing(
    post: Post,
    admin: Admin,
    bad: dict[str, Any],
    bad_first: bool,  # noqa: FBT001
) -> None:
    """The order of the valid and the invalid event does not matter."""
    events = [session_event(payment_intent="pi_1", **bad), payment_intent_event(id="pi_1")]
    for event in events if bad_first else events[::-1]:
        post(event)
    assert (balance(admin), parked(admin)) == (100, [])


@pytest.mark.parametrize("capture_first", [True, False])
def test_capture_by_an_unknown_user_of_a_session_is_parked(
    post: Post,
    admin: Admin,
    capture_first: bool,  # noqa: FBT001
) -> None:
    """No other event reports that the sale is paid."""
    capture = payment_intent_event(
        "payment_intent.succeeded.manual_capture", id="pi_1", credits="100", user_id=UNKNOWN_USER
    )
    session = session_event("checkout.session.completed.unpaid", payment_intent="pi_1")
    for event in (capture, session) if capture_first else (session, capture):
        post(event)
    assert [event_id for event_id, _ in parked(admin)] == [capture["id"]]


@pytest.mark.parametrize("capture_first", [True, False])
def test_capture_with_bad_credits_pays_its_session(
    post: Post,
    admin: Admin,
    capture_first: bool,  # noqa: FBT001
) -> None:
    """Bad credits count as missing, so those of the session count. What the event reports about money is recorded."""
    capture = payment_intent_event("payment_intent.succeeded.manual_capture", id="pi_1", credits="ten")
    session = session_event("checkout.session.completed.unpaid", payment_intent="pi_1")
    for event in (capture, session) if capture_first else (session, capture):
        post(event)
    assert (balance(admin), parked(admin)) == (100, [])


def test_event_with_bad_credits_records_its_money(post: Post, admin: Admin) -> None:
    """So an operator has to name the credits alone, and a refund that comes first waits for them."""
    post(session_event(credits="ten", payment_intent="pi_1", amount=1000))
    columns = "user_id::text, credits, money_amount, currency, paid"
    assert rows(admin, f"select {columns} from billing.sales") == [(USER_ID, None, 1000, "usd", True)]
    assert [reason for _, reason in parked(admin)] == ["invalid_credits"]


def test_event_of_a_sale_settled_meanwhile_is_not_parked(database: Database, admin: Admin, buyer: str) -> None:
    ledger = Ledger(database.url)
    paid = Sale("pi_1", PAYMENT_INTENT, buyer, 100, 1000, "usd", paid=True)
    ledger.record("evt_2", [paid])
    event = Event("evt_1", "checkout.session.completed", livemode=False, account=None, object={})
    assert ledger.park(event, "missing_user", "pi_1", "{}").name == "duplicate"
    ledger.close()
    assert parked(admin) == []


def test_redelivered_event_of_an_erased_sale_is_not_parked(post: Post, admin: Admin) -> None:
    post(session_event(credits="oops"))
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert post(session_event(credits="oops")).json == {"outcome": "duplicate"}
    assert parked(admin) == []


def test_parked_event_redelivered_after_sign_up_is_recorded(post: Post, admin: Admin) -> None:
    """The parked event is resolved, and its payload is deleted."""
    post(session_event(user_id=UNKNOWN_USER))
    admin.execute("insert into auth.users (id) values (%s)", [UNKNOWN_USER])
    assert post(session_event(user_id=UNKNOWN_USER)).json == {"outcome": "recorded"}
    assert rows(admin, "select resolved_at is null, payload is null from billing.parked_events") == [(False, True)]


def test_event_id_that_postgres_cannot_store_becomes_a_digest(post: Post, admin: Admin) -> None:
    post(session_event(user_id=None, event_id="evt_\x00"))
    post(session_event(user_id=None, event_id="evt_\ud800"))
    assert len(parked(admin)) == 2
