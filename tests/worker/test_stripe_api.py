"""Deliveries that need a lookup at Stripe's API."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
import responses
from flask import Flask
from flask.testing import FlaskClient

from support.delivery import post
from support.recorded import USER_ID, recorded, refund_event, session_event
from support.stripe_api import BASE, LINE, LINES, PRICE, page
from webhook.settings import StripeSettings

Mock = responses.RequestsMock
Admin = psycopg.Connection[Any]


# Deliveries


@pytest.fixture
def client(make_app: Callable[..., Flask], buyer: str) -> FlaskClient:
    assert buyer
    return make_app(stripe=StripeSettings("rk_test_1")).test_client()


def entries(admin: Admin) -> list[tuple[Any, ...]]:
    return admin.execute("select stripe_id, amount from public.transactions order by ctid").fetchall()


def test_sale_with_the_credits_of_its_price_is_recorded(client: FlaskClient, admin: Admin, stripe_api: Mock) -> None:
    stripe_api.get(LINES, json=page(LINE))
    event = session_event(credits=None)
    assert post(client, event).json == {"outcome": "recorded"}
    assert entries(admin) == [(event["data"]["object"]["payment_intent"], 200)]


def test_redelivery_after_a_price_change_keeps_the_credits(client: FlaskClient, admin: Admin, stripe_api: Mock) -> None:
    """A redelivery neither raises nor lowers credits that come from a price."""
    event = session_event(credits=None)
    for price_credits in ("100", "150", "50"):
        stripe_api.get(LINES, json=page(LINE | {"price": PRICE | {"metadata": {"credits": price_credits}}}))
    outcomes = [post(client, event).json for _ in range(3)]
    assert outcomes == [{"outcome": "recorded"}, {"outcome": "duplicate"}, {"outcome": "duplicate"}]
    assert entries(admin) == [(event["data"]["object"]["payment_intent"], 200)]


def test_redelivery_with_more_credits_in_its_event_adds_them(client: FlaskClient, admin: Admin) -> None:
    """Credits in events are merged independently of their order."""
    for event_credits in (100, 150, 50):
        post(client, session_event(credits=event_credits))
    assert sum(amount for _, amount in entries(admin)) == 150


def test_sale_with_a_failed_lookup_is_unavailable(client: FlaskClient, admin: Admin, stripe_api: Mock) -> None:
    """Nothing is stored, and Stripe retries the delivery."""
    stripe_api.get(LINES, status=401, json={"error": {"message": "no"}})
    answer = post(client, session_event(credits=None))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    [(rows,)] = admin.execute("select count(*) from billing.sales").fetchall()
    assert rows == 0


REFUNDED = recorded("charge.refunded")
PAYMENT = REFUNDED["data"]["object"]["payment_intent"]
REFUND = refund_event(payment_intent=PAYMENT, amount=250)["data"]["object"]


def test_charge_refunded_records_each_refund_under_its_own_id(
    client: FlaskClient, admin: Admin, stripe_api: Mock
) -> None:
    stripe_api.get(f"{BASE}/v1/refunds", json=page(REFUND, REFUND | {"id": "re_2", "status": "failed"}))
    post(client, session_event(payment_intent=PAYMENT))
    assert post(client, REFUNDED).json == {"outcome": "recorded"}
    assert entries(admin) == [(PAYMENT, 100), (REFUND["id"], -25)]


def test_charge_refunded_after_its_refund_event_is_a_duplicate(
    client: FlaskClient, admin: Admin, stripe_api: Mock
) -> None:
    stripe_api.get(f"{BASE}/v1/refunds", json=page(REFUND))
    post(client, session_event(payment_intent=PAYMENT))
    post(client, refund_event(payment_intent=PAYMENT, amount=250))
    assert post(client, REFUNDED).json == {"outcome": "duplicate"}
    assert entries(admin) == [(PAYMENT, 100), (REFUND["id"], -25)]


def test_charge_refunded_without_refunds_is_ignored(client: FlaskClient, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/refunds", json=page())
    assert post(client, REFUNDED).json == {"outcome": "ignored", "reason": "no_refunds"}


@pytest.fixture
def client_without_key(app: Flask) -> FlaskClient:
    return app.test_client()


def test_charge_refunded_of_an_unknown_sale_is_ignored(client_without_key: FlaskClient) -> None:
    """This needs no API key."""
    assert post(client_without_key, REFUNDED).json == {"outcome": "ignored", "reason": "refunds_known"}


def test_charge_refunded_without_an_api_key_is_parked(client_without_key: FlaskClient) -> None:
    """The refunds of its sale are not recorded yet."""
    post(client_without_key, session_event(payment_intent=PAYMENT))
    assert post(client_without_key, REFUNDED).json == {"outcome": "parked", "reason": "missing_api_key"}


@pytest.mark.parametrize(("amounts", "left"), [([400], 1), ([400, 600], 0)])
def test_total_is_resolved_once_its_refunds_are_known(
    client_without_key: FlaskClient, admin: Admin, amounts: list[int], left: int
) -> None:
    """Stripe sends the total of a charge together with its refunds, in any order."""
    for event in (session_event(payment_intent=PAYMENT), REFUNDED):
        post(client_without_key, event)
    for number, amount in enumerate(amounts):
        post(client_without_key, refund_event(payment_intent=PAYMENT, id=f"re_{number}", amount=amount))
    assert admin.execute("select from billing.parked_events where resolved_at is null").rowcount == left


def test_charge_refunded_with_recorded_refunds_is_ignored(client_without_key: FlaskClient) -> None:
    """This needs no API key."""
    post(client_without_key, session_event(payment_intent=PAYMENT))
    post(client_without_key, refund_event(payment_intent=PAYMENT, amount=REFUNDED["data"]["object"]["amount_refunded"]))
    assert post(client_without_key, REFUNDED).json == {"outcome": "ignored", "reason": "refunds_known"}


# Objects that Stripe does not have

MISSING = {"status": 404, "json": {"error": {"type": "invalid_request_error", "code": "resource_missing"}}}
INVOICE = recorded("invoice.paid")
LONG_INVOICE = INVOICE | {
    "data": {"object": INVOICE["data"]["object"] | {"id": "in_long", "lines": {"data": [], "has_more": True}}}
}


def without_credits(event: dict[str, Any]) -> dict[str, Any]:
    source = event["data"]["object"]
    parent = {"subscription_details": {"metadata": {"user_id": USER_ID}}}
    return event | {"data": {"object": source | {"metadata": {}, "parent": parent}}}


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (session_event(credits=None), LINES),
        (without_credits(LONG_INVOICE), f"{BASE}/v1/invoices/in_long/lines"),
        (REFUNDED, f"{BASE}/v1/refunds"),
    ],
    ids=["session line items", "invoice lines", "charge refunds"],
)
def test_event_with_a_missing_object_is_parked(
    client: FlaskClient, stripe_api: Mock, event: dict[str, Any], path: str
) -> None:
    """The key belongs to another account, which no redelivery changes."""
    stripe_api.get(path, **MISSING)
    assert post(client, event).json == {"outcome": "parked", "reason": "missing_object"}


def test_event_with_a_missing_price_is_parked(client: FlaskClient, stripe_api: Mock) -> None:
    stripe_api.get(LINES, json=page(LINE | {"price": "price_gone"}))
    stripe_api.get(f"{BASE}/v1/prices/price_gone", **MISSING)
    assert post(client, session_event(credits=None)).json == {"outcome": "parked", "reason": "missing_object"}


def test_refund_with_a_missing_charge_stays_parked_after_its_sale(
    client: FlaskClient, admin: Admin, stripe_api: Mock
) -> None:
    """Its refunds are not recorded, although its sale is settled."""
    stripe_api.get(f"{BASE}/v1/refunds", **MISSING)
    post(client, session_event(payment_intent=PAYMENT))
    post(client, REFUNDED)
    post(client, session_event(payment_intent=PAYMENT, credits=150))
    assert admin.execute("select reason from billing.parked_events where resolved_at is null").fetchall() == [
        ("missing_object",)
    ]


def test_sale_with_a_missing_object_is_settled_by_another_event(
    client: FlaskClient, admin: Admin, stripe_api: Mock
) -> None:
    stripe_api.get(LINES, **MISSING)
    post(client, session_event(event_id="evt_1", credits=None, payment_intent="pi_1"))
    post(client, session_event(event_id="evt_2", payment_intent="pi_1"))
    assert admin.execute("select resolution from billing.parked_events").fetchall() == [("settled",)]


@pytest.mark.parametrize("answer", [{"body": "<h1>Not Found</h1>"}, {"json": {"error": {"message": "no route"}}}])
def test_404_of_another_server_is_unavailable(client: FlaskClient, stripe_api: Mock, answer: dict[str, Any]) -> None:
    """STRIPE_API_BASE may be wrong; Stripe itself names the code resource_missing."""
    stripe_api.get(LINES, status=404, **answer)
    assert post(client, session_event(credits=None)).status_code == 503


# Other modes


def test_event_of_the_other_mode_is_parked(client: FlaskClient) -> None:
    """It needs no lookup."""
    answer = post(client, session_event(credits=None) | {"livemode": True})
    assert answer.json == {"outcome": "parked", "reason": "wrong_mode"}


# A Stripe API that stalls


class Stalling(BaseHTTPRequestHandler):
    """Accepts every request, and does not answer until ``released`` is set."""

    released = threading.Event()
    requests = threading.Semaphore(0)

    def do_GET(self) -> None:
        self.requests.release()
        self.released.wait(30)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def stalling_client(make_app: Callable[..., Flask], buyer: str, stripe_api: Mock) -> Iterator[FlaskClient]:
    assert buyer
    Stalling.released.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        stripe_api.add_passthru(base)
        yield make_app(stripe=StripeSettings("rk_test_1", base)).test_client()
        Stalling.released.set()
        server.shutdown()


def test_stalled_lookup_does_not_block_other_deliveries(stalling_client: FlaskClient, admin: Admin) -> None:
    """A delivery holds no database connection during its lookup."""
    app = stalling_client.application
    answers: list[int] = []
    waiting = [
        threading.Thread(
            target=lambda: answers.append(post(app.test_client(), session_event(credits=None)).status_code)
        )
        for _ in range(8)
    ]
    for thread in waiting:
        thread.start()
    assert Stalling.requests.acquire(timeout=10)
    assert post(stalling_client, session_event()).json == {"outcome": "recorded"}
    sessions = "pg_stat_activity where usename = 'webhook_worker' and datname = current_database()"
    connections = admin.execute(f"select count(*) from {sessions}").fetchall()
    for thread in waiting:
        thread.join(timeout=30)
    assert answers == [503] * 8
    assert connections == [(1,)]
