"""``webhook reconcile`` when Stripe, the database or a single object fails."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from support.reconciliation import PAYMENT, SESSION, days_ago, priced_session, unpaid_session
from support.recorded import invoice_event, invoice_payment_event, payment_intent_event, refund_event, session_event
from support.shop import Shop
from webhook.reconcile import recorder
from webhook.settings import SettingsError
from webhook.stripe_api import bulk as stripe_reader


@pytest.mark.parametrize("status", [429, 500, 503, 0], ids=["rate limit", "error", "unavailable", "closed connection"])
def test_stripe_with_temporary_failures_is_retried(shop: Shop, status: int) -> None:
    """Every second request fails."""
    shop.stripe.add_events(session_event())
    shop.stripe.error_status = lambda _, number: status if number % 2 else None
    assert (shop.reconcile("--since", "1d").exit_code, shop.balance()) == (1, 100)


def test_stripe_that_stalls_is_retried_after_the_timeout(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_reader, "OPERATOR_TIMEOUT", (1.0, 0.2))
    released, stalled = threading.Event(), threading.Event()

    def stall(path: str) -> None:
        if path == "/v1/refunds" and not stalled.is_set():
            stalled.set()
            released.wait(20)

    shop.stripe.before_answer = stall
    shop.stripe.add_events(refund_event())
    found = shop.missing("--since", "1d")
    released.set()
    assert len(found) == 1


def test_open_payment_lookup_rejected_leaves_the_run_incomplete(shop: Shop) -> None:
    """Only the code resource_missing means that there is no such payment."""
    shop.deliver(unpaid_session())
    assert shop.found("--since", "1d")["exit_code"] == 0
    shop.stripe.objects[PAYMENT] = payment_intent_event(id=PAYMENT)["data"]["object"]
    shop.stripe.rejected_parameters = {"payment_intent"}
    assert shop.found("--since", "1d")["exit_code"] == 2


def test_invoice_payment_without_an_id_fails_its_invoice(shop: Shop) -> None:
    """The run is incomplete."""
    payment = invoice_payment_event(id="inpay_1", invoice="in_1")
    shop.stripe.add_events(invoice_event(id="in_1"), payment)
    del shop.stripe.objects["inpay_1"]["id"]
    shop.stripe.delete_events()
    found = shop.found("--since", "1d")
    assert [(each["id"], each["status"]) for each in found["items"]] == [("in_1", "failed")]
    assert (found["exit_code"], "not an object with an id" in found["items"][0]["reason"]) == (2, True)


def test_object_with_a_rejected_lookup_fails_alone(shop: Shop) -> None:
    """A 400 is a permanent error, so it is not retried."""
    odd = priced_session(None)
    odd["data"]["object"] |= {"id": "cs_odd", "payment_intent": "pi_odd"}
    shop.stripe.add_events(odd | {"id": "evt_odd"}, session_event())
    shop.stripe.error_status = lambda path, _: 400 if path.startswith("/v1/prices") else None
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_odd": "failed", SESSION: "missing"}


@pytest.mark.parametrize("odd", [None, 7, "", "a\tb\x1b[0m", "x" * 300, {"id": "cs_1"}])
def test_object_without_a_usable_id_fails_alone(shop: Shop, odd: Any) -> None:
    """It is reported as failed, with a question mark as its id, and the run is incomplete."""
    shop.stripe.add_events(session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd"))
    shop.stripe.add_events(session_event(), at=days_ago(0.5))
    shop.stripe.objects["cs_odd"]["id"] = odd
    shop.stripe.objects["evt_2"] |= {"data": {"object": shop.stripe.objects["cs_odd"]}}
    found = shop.found("--since", "1d")
    items = sorted((each["status"], each["kind"], each["id"]) for each in found["items"])
    assert items == [("failed", "checkout.session", "?")] * 2 + [("missing", "checkout.session", SESSION)]
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_list_without_a_next_cursor_is_read_as_far_as_possible(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its valid objects are recorded, and the run is incomplete."""
    listed = shop.stripe._list  # noqa: SLF001 - to corrupt its answer

    def odd(every: list[Any], path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        status, body = listed(every, path, query)
        is_odd = path == "/v1/checkout/sessions" and body["data"]
        return status, body | {"data": [*body["data"], "odd"], "has_more": True} if is_odd else body

    monkeypatch.setattr(shop.stripe, "_list", odd)
    shop.stripe.add_events(session_event())
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance()) == (2, 100)
    assert "has more pages, but its last object has no id" in found["not_finished"][0]


def test_object_that_cannot_be_parked_fails_alone(shop: Shop) -> None:
    """Python reads NaN as JSON, and Postgres rejects it."""
    odd = session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd", credits=None)
    odd["data"]["object"]["metadata"] |= {"number": float("nan")}
    shop.stripe.add_events(session_event(), odd, session_event(event_id="evt_3", id="cs_3", credits=None))
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_odd": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_missing_permission_is_named_and_other_lists_are_read(shop: Shop) -> None:
    """The run is incomplete, so the next one begins at the same time."""
    shop.stripe.add_events(session_event())
    shop.stripe.error_status = lambda path, _: 403 if path == "/v1/disputes" else None
    result = shop.reconcile("--since", "1d")
    assert (result.exit_code, shop.balance()) == (2, 100)
    assert "disputes: not read; the key lacks a permission: add Disputes: Read" in result.stderr
    assert "run it again with --since 20" in result.stderr
    assert shop.reconcile().exit_code == 2


def test_missing_permission_for_prices_is_named(shop: Shop) -> None:
    """The message names Prices, not the permission for the list of sessions."""
    shop.stripe.add_events(priced_session(None))
    shop.stripe.error_status = lambda path, _: 403 if path.startswith("/v1/prices") else None
    assert (
        "Checkout Sessions: not read; the key lacks a permission: add Prices: Read"
        in shop.reconcile("--since", "1d").stderr
    )


def test_object_with_a_missing_price_is_parked(shop: Shop) -> None:
    """The run is complete: the next one would not find the price either."""
    gone = priced_session(None)
    gone["data"]["object"] |= {"id": "cs_gone", "payment_intent": "pi_gone"}
    shop.stripe.add_events(gone | {"id": "evt_gone"}, session_event())
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_gone": "parked", SESSION: "missing"}
    assert (found["exit_code"], found["complete"], shop.balance()) == (1, True, 100)
    assert "missing_object" in [each["reason"] for each in found["items"]]


def test_object_with_a_404_of_another_server_fails_alone(shop: Shop) -> None:
    """Only the code resource_missing means that Stripe has no such price."""
    gone = priced_session(None)
    gone["data"]["object"] |= {"id": "cs_gone", "payment_intent": "pi_gone"}
    shop.stripe.add_events(gone | {"id": "evt_gone"}, session_event())
    shop.stripe.error_status = lambda path, _: 404 if path.startswith("/v1/prices") else None
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_gone": "failed", SESSION: "missing"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_run_with_a_bug_is_incomplete(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits with 2, not with Python's 1, and prints a whole summary."""
    shop.stripe.add_events(session_event())
    monkeypatch.setattr(recorder.Recorder, "record", lambda *_: json.loads(""))
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_list_that_breaks_off_reports_how_far_it_was_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects up to there are recorded."""
    monkeypatch.setattr(stripe_reader, "_RETRY_SECONDS", 0.1)
    newest = days_ago(1)
    for number in range(150):
        session = session_event(event_id=f"evt_{number}", id=f"cs_{number}", payment_intent=f"pi_{number}")
        shop.stripe.add_events(session, at=newest - number)
    shop.stripe.error_status = lambda path, number: 500 if path == "/v1/checkout/sessions" and number > 2 else None
    result = shop.reconcile("--since", "2d")
    reached = datetime.fromtimestamp(newest - 99, UTC)
    assert result.exit_code == 2
    assert f"Checkout Sessions: read back to {reached:%Y-%m-%d %H:%M}" in result.stderr
    assert shop.balance() == 100 * 100


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"STRIPE_API_KEY": ""}, "STRIPE_API_KEY is not set"),
        ({"STRIPE_LIVEMODE": "true"}, "STRIPE_API_KEY is for the other mode"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "no connection"),
    ],
)
def test_run_that_cannot_begin_reports_the_cause(shop: Shop, environment: dict[str, str], cause: str) -> None:
    result = shop.reconcile("--since", "1d", **environment)
    if result.exit_code != 2:
        assert isinstance(result.exception, SettingsError)
    assert cause in result.stderr + str(result.exception)


def test_sale_that_the_database_rejects_fails_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as failed, and the run is incomplete."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    rich = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.admin.execute("insert into auth.users (id) values (%s)", [rich])
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type) values (%s, %s, 'REFUND')", [rich, 2**53 - 5]
    )
    shop.stripe.add_events(
        session_event(), session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", user_id=rich)
    )
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_2": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_database_that_becomes_unavailable_ends_the_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run retries for a while, then reports the SQLSTATE and exits with 2."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    shop.stripe.add_events(session_event())
    shop.admin.execute("alter function billing.reconcile(jsonb, boolean) rename to reconcile_no_more")
    gone = threading.Lock()

    def go_away(_: str) -> None:
        if gone.acquire(blocking=False):
            shop.admin.execute("alter function billing.schema_version() rename to schema_version_no_more")

    shop.stripe.before_answer = go_away  # once the run has begun
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance(), found["items"]) == (2, 0, [])
    assert "SQLSTATE 42883" in found["not_finished"][0]


def test_run_whose_end_cannot_be_stored_is_incomplete(shop: Shop) -> None:
    """It read everything, but the next run begins at the same time."""
    shop.admin.execute("alter function billing.finish_reconciliation(bigint) rename to finish_no_more")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_schema_that_is_too_old_is_reported_before_any_request(shop: Shop) -> None:
    """The message suggests ``webhook migrate``."""
    shop.admin.execute(
        "create or replace function billing.schema_version() returns text language sql return '20261122000006'"
    )
    result = shop.reconcile("--since", "1d")
    assert result.exit_code == 2
    assert "run webhook migrate" in result.stderr
    assert not shop.stripe.requests
