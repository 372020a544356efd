"""The limits of the console: requests at a time, the time and size of a request, and its own connections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from time import monotonic

import psycopg
import pytest
import responses
from flask.testing import FlaskClient

from support.console import SAME_ORIGIN, TestPages, bearer, change
from support.databases import WORKER, Database
from support.ledger_queries import WAITS, held, sessions
from support.waiting import eventually
from webhook.console import limits
from webhook.console.limits import Deadline
from webhook.console.reading import PageLedger, PageStripe, PageTimeoutError
from webhook.ledger.errors import LedgerUnavailableError
from webhook.settings import StripeSettings
from webhook.stripe_api.errors import StripeUnavailableError

BUSY, VIEW = "/console/test/busy", "/console/test/view"


@pytest.fixture
def two_requests(console: FlaskClient, test_pages: TestPages) -> Callable[[], None]:
    """Two requests in progress. Returns the function that ends them."""
    answers: list[int] = []

    def get() -> None:
        answers.append(console.application.test_client().get(BUSY, headers=bearer()).status_code)

    threads = [Thread(target=get) for _ in range(2)]
    for thread in threads:
        thread.start()
        test_pages.entered.get(timeout=30)

    def finish() -> None:
        test_pages.may_leave.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]

    return finish


def test_third_request_at_a_time_is_refused(console: FlaskClient, two_requests: Callable[[], None]) -> None:
    third = console.get(VIEW, headers=bearer())
    two_requests()
    assert (third.status_code, third.headers["Retry-After"]) == (503, "5")
    assert console.get(VIEW, headers=bearer()).status_code == 200


def test_login_and_style_need_no_slot(console: FlaskClient, two_requests: Callable[[], None]) -> None:
    answers = [console.get(path).status_code for path in ("/console/login", "/console/style.css", VIEW)]
    two_requests()
    assert answers == [200, 200, 303]


def test_request_without_login_takes_no_slot(console: FlaskClient, two_requests: Callable[[], None]) -> None:
    """So strangers cannot keep the operators out."""
    refused = [console.get(VIEW, headers=bearer("wrong")).status_code, change(console).status_code]
    two_requests()
    assert refused == [401, 401]


def test_error_gives_the_slot_back(console: FlaskClient) -> None:
    for _ in range(3):
        assert console.get("/console/test/raises", headers=bearer()).status_code == 500


@pytest.mark.parametrize("path", ["/console/login", "/console/test/change"])
def test_form_that_is_too_large_is_refused(ann: FlaskClient, test_pages: TestPages, path: str) -> None:
    form = {"reason": "x" * (limits.LARGEST_FORM + 1)}
    assert ann.post(path, data=form, headers=SAME_ORIGIN).status_code == 413
    assert test_pages.changes == []


def test_slow_query_is_cancelled(ann: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's time is over before the query gets its lock."""
    monkeypatch.setattr("webhook.console.console.PAGE_SECONDS", 0.2)
    with held(database.admin_url, "lock table billing.parked_events"):
        page = ann.get("/console/test/reads/parked_events")
    assert (page.status_code, "took too long" in page.text) == (503, True)


def test_query_after_the_pages_time_is_not_sent(database: Database) -> None:
    ledger = PageLedger(database.url, lambda: Deadline(0))
    with pytest.raises(PageTimeoutError):
        ledger.rows("parked_events")


def test_page_allows_five_seconds() -> None:
    assert limits.PAGE_SECONDS == 5
    before = monotonic()
    left = Deadline(limits.PAGE_SECONDS).seconds_left
    assert 5 - (monotonic() - before) <= left <= 5


def test_request_to_stripe_after_the_pages_time_is_not_sent() -> None:
    reader = PageStripe(StripeSettings("sk_test_1"), lambda: Deadline(0))
    with pytest.raises(PageTimeoutError):
        reader.get(None, "/v1/charges", "ch_1")


def test_request_to_stripe_is_tried_once(stripe_api: responses.RequestsMock) -> None:
    reader = PageStripe(StripeSettings("sk_test_1"), lambda: Deadline(5))
    stripe_api.get("https://api.stripe.com/v1/charges/ch_1", status=500, json={"error": {}})
    with pytest.raises(StripeUnavailableError):
        reader.get(None, "/v1/charges", "ch_1")
    assert len(stripe_api.calls) == 1


def test_console_has_connections_of_its_own(bob: FlaskClient, admin: psycopg.Connection) -> None:
    """A page leaves the worker's idle connection alone."""
    worker = f"usename = '{WORKER}'"
    assert bob.get("/console/test/reads/parked_events").status_code == 200
    assert sessions(admin, worker) == 1
    assert bob.get("/readyz").status_code == 200
    assert sessions(admin, worker) == 2


def test_console_uses_two_connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.ledger.connections._POOL_TIMEOUT", 0.01)
    ledger = PageLedger(database.url, lambda: Deadline(5))
    with held(database.superuser_url, "lock table billing.parked_events") as holder, ThreadPoolExecutor(2) as threads:
        reads = [threads.submit(ledger.rows, "parked_events") for _ in range(2)]
        eventually(lambda: sessions(holder, WAITS) == 2)
        with pytest.raises(LedgerUnavailableError, match="all 2 connections are busy"):
            ledger.rows("parked_events")
        holder.rollback()
        assert [read.result() for read in reads] == [[], []]
    ledger.close()


def test_page_without_a_database_names_it(make_console: Callable[..., FlaskClient]) -> None:
    nowhere = "postgresql://worker@127.0.0.1:1/postgres"
    console = make_console(database_url=nowhere, operator_database_url=nowhere)
    page = console.get("/console/test/reads/parked_events", headers=bearer())
    assert (page.status_code, "The database does not answer" in page.text) == (503, True)
