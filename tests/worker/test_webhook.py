"""POST /webhook, from the bytes that arrive to the row and the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from support import delivery
from support.databases import Database
from support.recorded import (
    USER_ID,
    VERSIONS,
    dispute_event,
    invoice_event,
    payment_intent_event,
    recorded,
    refund_event,
    session_event,
    sign,
)
from webhook.app import create_app
from webhook.events.event import Event, EventScope
from webhook.events.facts import PAYMENT_INTENT, Sale
from webhook.ledger.ledger import Ledger
from webhook.settings import Settings

SECRET = "whsec_newer"
OLDER_SECRET = "whsec_older"
NOBODY = "00000000-0000-4000-8000-000000000000"

Admin = psycopg.Connection[Any]
Post = Callable[..., TestResponse]


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    return make_app(secrets=(SECRET, OLDER_SECRET)).test_client()


@pytest.fixture
def post(client: FlaskClient, buyer: str) -> Post:
    """Deliver a body (or an event), signed now unless a header is given; the buyer has an account."""
    assert buyer
    return partial(delivery.post, client, secret=SECRET)


def rows(admin: Admin, query: str) -> list[tuple[Any, ...]]:
    return admin.execute(query).fetchall()  # type: ignore[call-overload]


def balance(admin: Admin) -> int:
    [(credits_balance, total)] = rows(
        admin,
        "select credits_balance, (select coalesce(sum(amount), 0) from public.transactions) from public.users",
    )
    assert credits_balance == total
    return int(credits_balance)


def stored(admin: Admin) -> int:
    """How many rows there are, of all that a delivery could write."""
    tables = (
        "public.transactions",
        "billing.sales",
        "billing.reversals",
        "billing.payment_links",
        "billing.parked_events",
    )
    return sum(rows(admin, f"select count(*) from {table}")[0][0] for table in tables)


def parked(admin: Admin) -> list[tuple[Any, ...]]:
    return rows(admin, "select event_id, reason from billing.parked_events where resolved_at is null order by 1")


# Sales


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name", ["checkout.session.completed", "checkout.session.async_payment_succeeded", "payment_intent.succeeded"]
)
def test_sale_of_each_event_and_version_is_recorded(post: Post, admin: Admin, name: str, version: str) -> None:
    answer = post(recorded(name, version))
    assert (answer.status_code, answer.json) == (200, {"outcome": "recorded"})
    assert balance(admin) == 100


def test_sale_recorded_fills_every_column_of_its_row(post: Post, admin: Admin) -> None:
    event = session_event()
    post(event)
    payment_id = event["data"]["object"]["payment_intent"]
    assert rows(
        admin,
        "select user_id::text, amount, type::text, stripe_id, payment_id, money_amount, currency, event_id"
        " from public.transactions",
    ) == [(USER_ID, 100, "PURCHASE", payment_id, payment_id, 1000, "usd", event["id"])]


def test_sale_delivered_again_is_a_duplicate(post: Post, admin: Admin) -> None:
    post(session_event())
    assert post(session_event()).json == {"outcome": "duplicate"}
    assert balance(admin) == 100


def test_sale_told_by_all_its_events_grants_once(post: Post, admin: Admin) -> None:
    payment_id = session_event()["data"]["object"]["payment_intent"]
    again = session_event("checkout.session.async_payment_succeeded", payment_intent=payment_id)
    answers = [post(event).json for event in (session_event(), again, payment_intent_event(id=payment_id))]
    assert answers == [{"outcome": "recorded"}, {"outcome": "duplicate"}, {"outcome": "duplicate"}]
    assert balance(admin) == 100


def test_sale_unpaid_grants_nothing_until_its_payment_succeeds(post: Post, admin: Admin) -> None:
    assert post(recorded("checkout.session.completed.unpaid")).json == {"outcome": "recorded"}
    assert balance(admin) == 0
    assert post(recorded("checkout.session.async_payment_succeeded")).json == {"outcome": "recorded"}
    assert balance(admin) == 100


def test_sale_unpaid_told_after_its_payment_stays_granted(post: Post, admin: Admin) -> None:
    post(recorded("checkout.session.async_payment_succeeded"))
    assert post(recorded("checkout.session.completed.unpaid")).json == {"outcome": "duplicate"}
    assert balance(admin) == 100


def test_sale_with_nothing_to_pay_is_granted_under_the_session(post: Post, admin: Admin) -> None:
    event = recorded("checkout.session.completed.no_payment_required")
    post(event)
    assert rows(admin, "select stripe_id, money_amount from public.transactions") == [
        (event["data"]["object"]["id"], 0)
    ]


@pytest.mark.parametrize("captured_first", [True, False])
def test_sale_captured_by_hand_grants_when_money_was_received(post: Post, admin: Admin, captured_first: bool) -> None:  # noqa: FBT001
    capture = recorded("payment_intent.succeeded.manual_capture")
    session = session_event(payment_status="unpaid", payment_intent=capture["data"]["object"]["id"])
    for event in (capture, session) if captured_first else (session, capture):
        assert post(event).json == {"outcome": "recorded"}
    assert rows(admin, "select amount, money_amount from public.transactions") == [(100, 600)]


def test_sale_whose_intent_and_session_disagree_follows_the_intent(post: Post, admin: Admin) -> None:
    event = session_event(credits=90)
    post(event)
    post(payment_intent_event(id=event["data"]["object"]["payment_intent"]))
    assert rows(admin, "select stripe_id, type::text, amount from public.transactions order by amount desc") == [
        (event["data"]["object"]["payment_intent"], "PURCHASE", 90),
        (event["data"]["object"]["payment_intent"] + ":3", "REFUND", 10),
    ]


def test_sale_granted_by_hand_is_taken_back_by_its_refund(post: Post, admin: Admin) -> None:
    post(session_event(credits="100.0", payment_intent="pi_hand"))
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " values (%s, 100, 'PURCHASE', 'pi_hand', 'pi_hand', 1000, 'usd')",
        [USER_ID],
    )
    post(refund_event(payment_intent="pi_hand", amount=1000))
    assert balance(admin) == 0


def test_reversal_that_another_program_inserted_is_taken_once(post: Post, admin: Admin) -> None:
    row = "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, -100, 'REFUND', 're_hand')"
    admin.execute(row, [USER_ID])
    refund = refund_event(id="re_hand", payment_intent="pi_hand", amount=1000)
    for event in (refund, session_event(payment_intent="pi_hand"), session_event(payment_intent="pi_hand"), refund):
        post(event)
    assert balance(admin) == 0


def test_unpaid_session_of_a_row_that_another_program_inserted_changes_nothing(post: Post, admin: Admin) -> None:
    row = "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, 50, 'PURCHASE', 'pi_hand')"
    admin.execute(row, [USER_ID])
    post(session_event("checkout.session.completed.unpaid", payment_intent="pi_hand"))
    assert balance(admin) == 50


def test_merge_told_by_an_invoice_of_an_older_shape_bears_its_id(post: Post, admin: Admin) -> None:
    post(session_event(payment_intent="pi_1"))
    post(invoice_event(id="in_1"))
    older = invoice_event(id="in_1", event_id="evt_older")
    older["data"]["object"]["payment_intent"] = "pi_1"
    post(older)
    assert rows(admin, "select stripe_id, amount from public.transactions where type = 'REFUND'") == [
        ("in_1:merge", -100)
    ]


def test_row_that_another_program_inserted_counts_as_the_sale(post: Post, admin: Admin) -> None:
    event = session_event()
    payment_id = event["data"]["object"]["payment_intent"]
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id) values (%s, 100, 'PURCHASE', %s)",
        [USER_ID, payment_id],
    )
    assert post(event).status_code == 200
    assert balance(admin) == 100


# What has nothing to do with credits


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
def test_event_not_about_credits_is_ignored_and_leaves_no_trace(
    post: Post, admin: Admin, event: dict[str, Any]
) -> None:
    answer = post(event)
    assert answer.json is not None
    assert (answer.status_code, answer.json["outcome"]) == (200, "ignored")
    assert stored(admin) == 0


# Parked


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (session_event() | {"livemode": True}, "wrong_mode"),
        (session_event(currency=None), "unreadable"),
        (session_event(user_id=None), "missing_user"),
        (session_event(credits=None), "missing_credits"),
        (session_event(credits="-5"), "invalid_credits"),
        (session_event(user_id="42"), "unknown_user"),
        (session_event(user_id=NOBODY), "unknown_user"),
        (session_event(user_id=NOBODY, credits=None), "missing_credits"),
        (session_event("checkout.session.completed.unpaid", user_id=NOBODY), "unknown_user"),
        (payment_intent_event(user_id=None), "missing_user"),
    ],
)
def test_event_that_cannot_be_settled_is_parked(post: Post, admin: Admin, event: dict[str, Any], reason: str) -> None:
    answer = post(event)
    assert (answer.status_code, answer.json) == (200, {"outcome": "parked", "reason": reason})
    assert parked(admin) == [(event["id"], reason)]
    assert balance(admin) == 0


def test_parked_event_keeps_its_body_to_the_byte(post: Post, admin: Admin) -> None:
    body = json.dumps(session_event(user_id=None), indent=3).replace('"buyer', r'"\u0000\ud800buyer').encode()
    assert post(body).json == {"outcome": "parked", "reason": "missing_user"}
    assert rows(admin, "select payload::text from billing.parked_events") == [(body.decode(),)]


def test_parked_event_delivered_again_stays_one(post: Post, admin: Admin) -> None:
    for _ in range(2):
        assert post(session_event(user_id=NOBODY)).json == {"outcome": "parked", "reason": "unknown_user"}
    assert len(parked(admin)) == 1


@pytest.mark.parametrize("session_first", [True, False])
def test_sale_whose_parts_come_in_two_events_is_settled_by_the_second(
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


@pytest.mark.parametrize("bad", [{"credits": "ten"}, {"user_id": NOBODY}, {"credits": "ten", "user_id": None}])
@pytest.mark.parametrize("bad_first", [True, False])
def test_sale_settled_by_another_source_parks_nothing_whatever_the_order(
    post: Post,
    admin: Admin,
    bad: dict[str, Any],
    bad_first: bool,  # noqa: FBT001
) -> None:
    events = [session_event(payment_intent="pi_1", **bad), payment_intent_event(id="pi_1")]
    for event in events if bad_first else events[::-1]:
        post(event)
    assert (balance(admin), parked(admin)) == (100, [])


@pytest.mark.parametrize("bad", [{"credits": "ten"}, {"credits": "100", "user_id": NOBODY}])
@pytest.mark.parametrize("capture_first", [True, False])
def test_capture_that_cannot_be_settled_waits_while_nothing_else_says_that_its_sale_is_paid(
    post: Post,
    admin: Admin,
    bad: dict[str, Any],
    capture_first: bool,  # noqa: FBT001
) -> None:
    capture = payment_intent_event("payment_intent.succeeded.manual_capture", id="pi_1", **bad)
    session = session_event("checkout.session.completed.unpaid", payment_intent="pi_1")
    for event in (capture, session) if capture_first else (session, capture):
        post(event)
    assert [event_id for event_id, _ in parked(admin)] == [capture["id"]]


def test_event_parked_while_its_sale_was_settled_is_not_parked(database: Database, admin: Admin, buyer: str) -> None:
    ledger = Ledger(database.url)
    paid = Sale("pi_1", PAYMENT_INTENT, buyer, 100, 1000, "usd", paid=True)
    ledger.record("evt_2", [paid])
    event = Event("evt_1", "checkout.session.completed", livemode=False, account=None, object={})
    assert ledger.park(event, "missing_user", "pi_1", "{}").name == "duplicate"
    ledger.close()
    assert parked(admin) == []


def test_event_of_an_erased_sale_parks_nothing_again(post: Post, admin: Admin) -> None:
    post(session_event(credits="oops"))
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert post(session_event(credits="oops")).json == {"outcome": "duplicate"}
    assert parked(admin) == []


def test_event_parked_for_its_user_is_settled_when_delivered_after_the_sign_up(post: Post, admin: Admin) -> None:
    post(session_event(user_id=NOBODY))
    admin.execute("insert into auth.users (id) values (%s)", [NOBODY])
    assert post(session_event(user_id=NOBODY)).json == {"outcome": "recorded"}
    assert rows(admin, "select resolved_at is null, payload is null from billing.parked_events") == [(False, True)]


def test_event_whose_id_postgres_cannot_hold_is_parked_under_a_digest(post: Post, admin: Admin) -> None:
    post(session_event(user_id=None, event_id="evt_\x00"))
    post(session_event(user_id=None, event_id="evt_\ud800"))
    assert len(parked(admin)) == 2


def test_sale_with_hostile_strings_where_they_do_not_matter_is_recorded(post: Post, admin: Admin) -> None:
    event = session_event(success_url="\x00\ud800", event_id="evt_\x00") | {"api_version": "\udfff"}
    assert post(event).json == {"outcome": "recorded"}
    assert balance(admin) == 100


# Signatures


def unsigned(body: bytes) -> dict[str, str]:
    good = sign(body, SECRET)
    timestamp, signature = good.split(",")
    now = int(time.time())
    return {
        "none": "",
        "malformed": "garbage",
        "no timestamp": signature,
        "no signature": timestamp,
        "timestamp not a number": f"t=now,{signature}",
        "non-ASCII": f"{timestamp},v1=\xe9",
        "non-ASCII timestamp": f"t=\xb2,{signature}",
        "of another secret": sign(body, "whsec_other"),
        "of another body": sign(body + b" ", SECRET),
        "of another scheme": good.replace("v1=", "v0="),
        "of another time": f"t={now + 1},{signature}",
        "stale": sign(body, SECRET, now - 301),
        "two headers": f"{good},{good}",
        "two headers, the second garbage": f"{good},garbage",
        "two headers, the first without a timestamp": f"garbage=1,{good},{timestamp}",
    }


@pytest.mark.parametrize("problem", unsigned(b""))
def test_signature_that_is_not_good_is_refused(post: Post, admin: Admin, problem: str) -> None:
    body = json.dumps(session_event()).encode()
    answer = post(body, unsigned(body)[problem])
    assert (answer.status_code, stored(admin)) == (400, 0)
    assert answer.json is not None
    assert answer.json.keys() == {"error"}


def test_signature_header_missing_is_refused(client: FlaskClient) -> None:
    assert client.post("/webhook", json=session_event()).status_code == 400


def test_signature_headers_sent_twice_are_refused(client: FlaskClient) -> None:
    body = json.dumps(session_event()).encode()
    headers = [("Stripe-Signature", sign(body, SECRET)), ("Stripe-Signature", sign(body, OLDER_SECRET))]
    assert client.post("/webhook", data=body, headers=headers).status_code == 400


def test_signature_of_the_older_secret_is_good(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    assert post(body, sign(body, OLDER_SECRET)).json == {"outcome": "recorded"}


def test_signature_of_both_secrets_in_one_header_is_good(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    timestamp = int(time.time())
    older, newer = (sign(body, secret, timestamp).partition(",")[2] for secret in (OLDER_SECRET, SECRET))
    assert post(body, f"t={timestamp},{older},{newer},v0=0000").json == {"outcome": "recorded"}


def test_signature_just_within_the_tolerance_is_good(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    assert post(body, sign(body, SECRET, int(time.time()) - 290)).status_code == 200


# Bodies


def nested(depth: int) -> bytes:
    deep = b"[" * depth + b"]" * depth
    return json.dumps(session_event(credits=None)).encode()[:-1] + b', "deep": ' + deep + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"42",
        b'"evt_1"',
        b"{",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf{}",
        json.dumps(session_event()).encode("utf-16"),
        json.dumps(session_event() | {"id": 1}).encode(),
        json.dumps(session_event() | {"type": None}).encode(),
        json.dumps(session_event() | {"data": []}).encode(),
        json.dumps(session_event() | {"data": {"object": []}}).encode(),
        json.dumps(session_event() | {"data": {}}).encode(),
        json.dumps([session_event()]).encode(),
        json.dumps(session_event(amount_total=float("nan"))).encode(),
        json.dumps(session_event(amount_total=float("inf"))).encode(),
        json.dumps(session_event())[:-2].encode(),
        json.dumps(session_event()).encode() * 2,
        b'{"id": 1' + b"0" * 5000 + b"}",
        nested(200_000),
    ],
    ids=range(23),
)
def test_body_signed_that_is_not_one_event_is_refused(post: Post, admin: Admin, body: bytes) -> None:
    assert (post(body).status_code, stored(admin)) == (400, 0)


@pytest.mark.parametrize("depth", [100, 400, 900, 5_000, 20_000, 50_000, 90_000])
def test_body_nested_deeply_is_refused_or_parked_never_an_error(post: Post, depth: int) -> None:
    assert post(nested(depth)).status_code in (200, 400)


def padded(size: int) -> bytes:
    body = json.dumps(session_event()).encode()
    return body + b" " * (size - len(body))


def test_body_of_a_mebibyte_is_read(post: Post) -> None:
    assert post(padded(1024 * 1024)).json == {"outcome": "recorded"}


def test_body_over_a_mebibyte_is_too_large(post: Post, admin: Admin) -> None:
    assert (post(padded(1024 * 1024 + 1)).status_code, stored(admin)) == (413, 0)


# Other requests


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_method_is_not_allowed(client: FlaskClient, method: str) -> None:
    answer = client.open("/webhook", method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_other_path_is_not_found(client: FlaskClient) -> None:
    assert client.get("/").status_code == 404


def test_healthz_without_a_database_is_ok() -> None:
    settings = Settings("postgresql://nobody@127.0.0.1:1/none", (SECRET,), EventScope(livemode=False))
    assert create_app(settings).test_client().get("/healthz").status_code == 200


def test_readyz_with_the_schema_is_ok(client: FlaskClient) -> None:
    assert client.get("/readyz").status_code == 200


def test_readyz_with_an_older_schema_is_unavailable(client: FlaskClient, admin: Admin) -> None:
    admin.execute(
        "create or replace function billing.schema_version() returns text"
        " language sql immutable set search_path = '' return '20261122000001'"
    )
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_bug_in_the_worker_is_our_trouble_and_logged_without_its_message(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("buyer@example.com")

    monkeypatch.setattr("webhook.app.settle", fail)
    with capture_logs() as lines:
        answer = post(session_event())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert [(line["log_level"], line["reason"], line["cause"]) for line in lines] == [("error", "bug", "RuntimeError")]
    assert "buyer@example.com" not in str(lines)
