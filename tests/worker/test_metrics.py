"""GET /metrics of one process: its series, their values, and the data that it never contains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import responses
from flask import Flask
from werkzeug.test import TestResponse

from support.databases import Database
from support.delivery import SECRET, post
from support.operators import adjust
from support.recorded import USER_ID, session_event, sign
from support.roles import connected
from support.worker import samples
from webhook.app import create_app
from webhook.events.event import EventScope
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import CurrentCounts
from webhook.observability.database_counts import DatabaseCounts
from webhook.observability.metrics import ordinal
from webhook.settings import Settings, StripeSettings

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"

Admin = psycopg.Connection[Any]


@pytest.fixture
def app(make_app: Callable[..., Flask], buyer: str) -> Flask:
    assert buyer
    return make_app(stripe=StripeSettings("rk_test_1"))


def without_database(**settings: Any) -> Flask:
    return create_app(Settings(NOWHERE, (SECRET,), EventScope(livemode=False), **settings))


def deliver(app: Flask, event: Any, signature: str | None = None) -> TestResponse:
    return post(app.test_client(), event, signature)


def scrape(app: Flask) -> dict[str, float]:
    response = app.test_client().get("/metrics")
    assert response.status_code == 200
    return samples(response.text)


def deliveries(event_type: str, outcome: str, reason: str = "") -> str:
    return f'webhook_deliveries_total{{outcome="{outcome}",reason="{reason}",type="{event_type}"}}'


def requests_of(endpoint: str, status: int) -> str:
    return f'webhook_request_duration_seconds_count{{endpoint="{endpoint}",status="{status}"}}'


def failures(reason: str) -> str:
    return f'webhook_verification_failures_total{{reason="{reason}"}}'


def test_deliveries_are_counted_by_type_outcome_and_reason(app: Flask) -> None:
    deliver(app, session_event())
    deliver(app, session_event())
    deliver(app, session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", user_id="nobody"))
    counted = scrape(app)
    completed = "checkout.session.completed"
    assert counted[deliveries(completed, "recorded")] == 1
    assert counted[deliveries(completed, "duplicate")] == 1
    assert counted[deliveries(completed, "parked", "unknown_user")] == 1


def test_deliveries_of_unhandled_types_are_counted_as_other(app: Flask) -> None:
    """All unhandled types share one series."""
    for event_type in ("customer.created", "charge.dispute.invented", "\ud800", "x" * 10_000, 'a"}b\n'):
        deliver(app, session_event() | {"type": event_type})
    counted = {name: count for name, count in scrape(app).items() if name.startswith("webhook_deliveries_total")}
    assert sum(counted.values()) == 5
    assert all('type="other"' in name for name in counted)


@pytest.mark.parametrize(
    ("reason", "body", "signature"),
    [
        ("no_signature", b"{}", ""),
        ("malformed_signature", b"{}", "t=1,t=1,v1=ab"),
        ("wrong_signature", b"{}", sign(b"{}", "whsec_another")),
        ("old_signature", b"{}", sign(b"{}", SECRET, 1)),
        ("not_utf8", b"\xff", sign(b"\xff", SECRET)),
        ("not_json", b"{", None),
        ("not_an_event", b"{}", None),
    ],
    ids=lambda value: value.partition("=")[0] if isinstance(value, str) else None,  # not the time in a signature
)
def test_verification_failures_are_counted_by_reason(reason: str, body: bytes, signature: str | None) -> None:
    """The series of every reason starts at 0."""
    app = without_database()
    before = scrape(app)
    assert deliver(app, body, signature).status_code == 400
    after = scrape(app)
    names = [name for name in after if name.startswith("webhook_verification_failures_total")]
    assert {name: after[name] - before[name] for name in names} == {name: name == failures(reason) for name in names}


def test_verified_deliveries_are_counted_by_secret_position() -> None:
    """The series start at 0, so an operator sees when the old secret can be removed."""
    app = create_app(Settings(NOWHERE, ("whsec_new", SECRET), EventScope(livemode=False)))
    before = time.time()
    deliver(app, session_event())
    deliver(app, b"{}")
    deliver(app, session_event(), signature="t=1,v1=ab")
    counted = scrape(app)
    assert [counted[f'webhook_verified_deliveries_total{{secret="{each}"}}'] for each in ("first", "second")] == [0, 2]
    used = [counted[f'webhook_secret_last_used_timestamp_seconds{{secret="{each}"}}'] for each in ("first", "second")]
    assert used[0] == 0
    assert before <= used[1] <= time.time()


def test_secret_position_after_the_tenth_is_a_number() -> None:
    """A long list of secrets does not stop the worker."""
    assert [ordinal(position) for position in (0, 1, 9, 10)] == ["first", "second", "tenth", "11th"]


def test_requests_are_timed_by_endpoint_and_status(app: Flask) -> None:
    """All unknown paths share one series."""
    client = app.test_client()
    deliver(app, session_event())
    for path in ("/healthz", "/readyz", "/wp-login.php", "/.env"):
        client.get(path)
    counted = scrape(app)
    timed = [("webhook", 200), ("healthz", 200), ("readyz", 200), ("other", 404)]
    assert [counted[requests_of(*each)] for each in timed] == [1, 1, 1, 2]
    assert counted['webhook_request_duration_seconds_bucket{endpoint="webhook",le="10.0",status="200"}'] == 1
    assert counted['webhook_request_duration_seconds_sum{endpoint="webhook",status="200"}'] > 0.001


def test_database_calls_are_timed_by_function_and_result(app: Flask, admin: Admin) -> None:
    """A rejected call is an error, and its delivery is counted as unavailable."""
    deliver(app, session_event())
    admin.execute("revoke insert on public.transactions from service_role")
    deliver(app, session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2"))
    counted = scrape(app)
    calls = [
        f'webhook_database_call_duration_seconds_count{{call="record",result="{result}"}}' for result in ("ok", "error")
    ]
    assert [counted[call] for call in calls] == [1, 1]
    assert counted[deliveries("checkout.session.completed", "unavailable", "database")] == 1
    assert counted[requests_of("webhook", 503)] == 1


@pytest.mark.parametrize(("status", "result"), [(200, "ok"), (403, "error")])
def test_stripe_requests_are_timed_by_result(
    app: Flask, stripe_api: responses.RequestsMock, status: int, result: str
) -> None:
    """A request that Stripe rejects is an error."""
    event = session_event(credits=None)
    url = f"https://api.stripe.com/v1/checkout/sessions/{event['data']['object']['id']}/line_items"
    stripe_api.get(url, json={"object": "list", "data": [], "has_more": False}, status=status)
    deliver(app, event)
    assert scrape(app)[f'webhook_stripe_request_duration_seconds_count{{result="{result}"}}'] == 1


def test_connections_are_reported_in_use_and_idle(app: Flask) -> None:
    """A connection is idle after its delivery."""
    deliver(app, session_event())
    counted = scrape(app)
    assert counted['webhook_database_connections{state="idle"}'] == 1
    assert counted['webhook_database_connections{state="in_use"}'] == 0


def test_connections_in_use_return_to_zero_after_an_outage() -> None:
    app = without_database()
    deliver(app, session_event())
    assert scrape(app)['webhook_database_connections{state="in_use"}'] == 0


def test_last_delivery_time_is_zero_before_the_first_delivery(app: Flask) -> None:
    """A rejected delivery does not count."""
    before = time.time()
    deliver(app, b"{}")
    assert scrape(app)["webhook_last_delivery_timestamp_seconds"] == 0
    deliver(app, session_event())
    assert before <= scrape(app)["webhook_last_delivery_timestamp_seconds"] <= time.time()


def test_parked_events_gauge_is_read_from_the_database(app: Flask, admin: Admin) -> None:
    """It includes the changes of other processes."""
    deliver(app, session_event(user_id="nobody"))
    assert scrape(app)["webhook_parked_events"] == 1
    admin.execute("update billing.parked_events set resolved_at = now(), resolution = 'settled', payload = null")
    assert scrape(app)["webhook_parked_events"] == 0


def test_metrics_without_a_database_omit_parked_events() -> None:
    """An unknown number must not be reported as 0; the other metrics are still reported."""
    counted = scrape(without_database())
    assert counted["webhook_database_up"] == 0
    assert "webhook_parked_events" not in counted
    assert counted[failures("no_signature")] == 0


def test_metrics_of_two_apps_in_one_process_are_separate(app: Flask) -> None:
    deliver(app, session_event())
    assert deliveries("checkout.session.completed", "recorded") not in scrape(without_database())


def test_metrics_contain_no_private_data(app: Flask) -> None:
    """They contain no ids, addresses or secrets."""
    event = session_event()
    deliver(app, event)
    text = app.test_client().get("/metrics").text
    sold = event["data"]["object"]
    private = [
        SECRET,
        USER_ID,
        "buyer",
        event["id"],
        sold["id"],
        sold["payment_intent"],
        sold["customer_details"]["email"],
    ]
    assert [each for each in private if each in text] == []


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer token", 200),
        ("Bearer wrong", 401),
        ("Bearer é", 401),
        ("Bearer", 401),
        ("Basic dG9rZW46", 401),
        ("", 401),
    ],
)
def test_metrics_with_a_token_require_it(header: str, status: int) -> None:
    """The response to other requests contains no metrics."""
    response = without_database(metrics_token="token").test_client().get("/metrics", headers={"Authorization": header})
    assert response.status_code == status
    assert ("webhook_build_info" in response.text) == (status == 200)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


def test_counts_of_a_hanging_database_time_out() -> None:
    """A scrape waits one second; scrapes share one query, and the next query runs after its result."""
    released, queries = threading.Event(), []

    def count() -> CurrentCounts:
        queries.append(1)
        assert released.wait(20)
        return CurrentCounts(len(queries), 0, 0)

    counts = DatabaseCounts(count)
    started = time.monotonic()
    assert counts() is None
    assert time.monotonic() - started < 2
    assert counts() is None
    assert len(queries) == 1
    released.set()
    assert counts() in (CurrentCounts(1, 0, 0), CurrentCounts(2, 0, 0))
    assert counts() == CurrentCounts(len(queries), 0, 0)


def test_counts_of_an_unavailable_database_are_unknown() -> None:
    """An outage does not make the scrape fail."""

    def fail() -> CurrentCounts:
        raise LedgerUnavailableError

    assert DatabaseCounts(fail)() is None


def test_operators_credits_are_read_from_the_database(app: Flask, database: Database, buyer: str) -> None:
    """The commands run in processes of their own, and the counter includes what they did."""
    names = [f'webhook_operator_credits_total{{direction="{each}"}}' for each in ("given", "taken")]
    assert [scrape(app)[name] for name in names] == [0, 0]
    with connected(database, "billing_operator") as operator:
        for amount in (100, -30, 7):
            adjust(operator, buyer, amount)
    assert [scrape(app)[name] for name in names] == [107, 30]
