"""Thin events: they name an object instead of containing it. https://docs.stripe.com/event-destinations#thin-payload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import responses
from flask import Flask
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from support.delivery import post
from support.recorded import session_event, thin_event
from support.stripe_api import BASE, SESSION
from webhook.settings import StripeSettings

Mock = responses.RequestsMock
Admin = psycopg.Connection[Any]

SESSION_PATH = f"/v1/checkout/sessions/{SESSION}"
NO_OBJECT: dict[str, Any] = {
    "null": {"related_object": None},
    "absent": {},
    "no url": {"related_object": {"id": "acct_1", "type": "v2.core.account"}},
    "url of API v2": {"related_object": {"id": "acct_1", "type": "v2.core.account", "url": "/v2/core/accounts/acct_1"}},
    "with data": {"data": {"developer_message_summary": "There is 1 invalid event"}, "reason": {"type": "request"}},
    "a list": {"related_object": []},
    "no livemode": {"livemode": None, "context": ["acct_1"]},
}


@pytest.fixture
def client(make_app: Callable[..., Flask], buyer: str) -> FlaskClient:
    assert buyer
    return make_app(stripe=StripeSettings("rk_test_1")).test_client()


def entries(admin: Admin) -> list[tuple[Any, ...]]:
    return admin.execute("select stripe_id, amount from public.transactions order by ctid").fetchall()


def without_object(event_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    event = thin_event(event_type, "/v1/x")
    del event["related_object"]
    return event | fields


@pytest.mark.parametrize("fields", NO_OBJECT.values(), ids=NO_OBJECT)
@pytest.mark.parametrize(
    "event_type",
    [
        "v2.core.event_destination.ping",
        "v2.core.account.updated",
        "v1.billing.meter.error_report_triggered",
        "v1.billing.meter.no_meter_found",
        "a type of the future",
    ],
)
def test_thin_event_that_is_not_handled_is_ignored(
    client: FlaskClient, event_type: str, fields: dict[str, Any]
) -> None:
    """Stripe disables a destination that answers 4xx."""
    answer = post(client, without_object(event_type, fields))
    assert (answer.status_code, answer.json) == (200, {"outcome": "ignored", "reason": "event_type"})


def test_ping_of_a_destination_is_logged(client: FlaskClient) -> None:
    with capture_logs() as lines:
        post(client, without_object("v2.core.event_destination.ping", {"related_object": None}))
    [line] = lines
    assert (line["type"], line["outcome"]) == ("v2.core.event_destination.ping", "ignored")


@pytest.mark.parametrize("fields", NO_OBJECT.values(), ids=NO_OBJECT)
def test_thin_event_about_credits_without_its_object_is_parked(client: FlaskClient, fields: dict[str, Any]) -> None:
    answer = post(client, without_object("v1.refund.created", fields))
    assert answer.json == {"outcome": "parked", "reason": "unreadable"}


@pytest.mark.parametrize("field", ["id", "type"])
def test_thin_event_without_an_id_or_type_is_rejected(client: FlaskClient, field: str) -> None:
    answer = post(client, thin_event("v2.core.account.updated", "/v1/x") | {field: 1})
    assert answer.status_code == 400


def test_thin_event_with_a_missing_object_is_parked(client: FlaskClient, stripe_api: Mock) -> None:
    error = {"type": "invalid_request_error", "code": "resource_missing"}
    stripe_api.get(BASE + SESSION_PATH, status=404, json={"error": error})
    answer = post(client, thin_event("v1.checkout.session.completed", SESSION_PATH))
    assert answer.json == {"outcome": "parked", "reason": "missing_object"}


def test_thin_event_is_recorded_like_its_snapshot(client: FlaskClient, admin: Admin, stripe_api: Mock) -> None:
    event = session_event()
    stripe_api.get(BASE + SESSION_PATH, json=event["data"]["object"])
    assert post(client, thin_event("v1.checkout.session.completed", SESSION_PATH)).json == {"outcome": "recorded"}
    assert post(client, event).json == {"outcome": "duplicate"}
    assert entries(admin) == [(event["data"]["object"]["payment_intent"], 100)]


def test_thin_event_after_its_snapshot_is_a_duplicate(client: FlaskClient, stripe_api: Mock) -> None:
    event = session_event()
    stripe_api.get(BASE + SESSION_PATH, json=event["data"]["object"])
    post(client, event)
    assert post(client, thin_event("v1.checkout.session.completed", SESSION_PATH)).json == {"outcome": "duplicate"}


def test_thin_event_of_an_unhandled_type_is_ignored(client: FlaskClient) -> None:
    """It needs no lookup."""
    answer = post(client, thin_event("v1.customer.created", "/v1/customers/cus_1"))
    assert answer.json == {"outcome": "ignored", "reason": "event_type"}


def test_thin_event_of_the_other_mode_is_parked(client: FlaskClient) -> None:
    """It needs no lookup."""
    answer = post(client, thin_event("v1.checkout.session.completed", SESSION_PATH, livemode=True))
    assert answer.json == {"outcome": "parked", "reason": "wrong_mode"}


def test_thin_event_of_an_unknown_dispute_type_is_ignored(client: FlaskClient) -> None:
    answer = post(client, thin_event("v1.charge.dispute.something", "/v1/disputes/du_1"))
    assert answer.json == {"outcome": "ignored", "reason": "event_type"}


def test_thin_event_of_a_connected_account_is_ignored(client: FlaskClient) -> None:
    answer = post(client, thin_event("v1.checkout.session.completed", SESSION_PATH, context="acct_1"))
    assert answer.json == {"outcome": "ignored", "reason": "connected_account"}


@pytest.mark.parametrize("path", ["https://elsewhere.example/v1/x", "/v2/x", "/v1/\u00e9"])
def test_thin_event_with_an_unknown_object_path_is_parked(client: FlaskClient, path: str) -> None:
    answer = post(client, thin_event("v1.checkout.session.completed", path))
    assert answer.json == {"outcome": "parked", "reason": "unreadable"}


@pytest.fixture
def client_without_key(app: Flask) -> FlaskClient:
    return app.test_client()


def test_thin_event_without_an_api_key_is_parked(client_without_key: FlaskClient) -> None:
    answer = post(client_without_key, thin_event("v1.checkout.session.completed", SESSION_PATH))
    assert answer.json == {"outcome": "parked", "reason": "missing_api_key"}
