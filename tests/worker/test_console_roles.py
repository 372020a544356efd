"""What viewers and operators may do, and what the database allows them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from flask.testing import FlaskClient

from support.console import TestPages, bearer, change, log_in
from support.databases import Database
from support.ledger_queries import sessions
from webhook.console.limits import Deadline
from webhook.console.reading import PageLedger
from webhook.ledger.errors import LedgerRefusedError

PAYLOAD, VIEW = "/console/test/payload", "/console/test/view"


def test_viewer_changes_nothing(bob: FlaskClient, test_pages: TestPages) -> None:
    response = change(bob)
    assert (response.status_code, "may only view" in response.text) == (403, True)
    assert test_pages.changes == []


def test_viewer_sees_no_payload(bob: FlaskClient) -> None:
    assert bob.get(PAYLOAD).status_code == 403


def test_operator_sees_payloads(ann: FlaskClient) -> None:
    assert ann.get(PAYLOAD).text == "payload"


def test_operator_changes_something(ann: FlaskClient, test_pages: TestPages) -> None:
    response = change(ann, "a refund")
    assert (response.status_code, response.location) == (303, VIEW)
    assert test_pages.changes == ["a refund by ann"]


def test_login_of_the_worker_may_only_view(
    make_console: Callable[..., FlaskClient], database: Database, test_pages: TestPages
) -> None:
    """The default: DATABASE_URL names a login that is not a member of billing_operator."""
    console = make_console(operator_database_url=database.url)
    log_in(console)
    response = change(console)
    assert (response.status_code, "not a member of billing_operator" in response.text) == (403, True)
    assert test_pages.changes == []
    assert "view only" in console.get(VIEW).text


def test_operators_may_act_after_the_grant(
    make_console: Callable[..., FlaskClient], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the database is kept for a moment only."""
    url = {"operator_database_url": database.url}
    console = make_console(**url)
    assert change(console, **bearer()).status_code == 403
    monkeypatch.setattr(console.application.console.operators, "login", lambda: "granted")
    assert change(console, **bearer()).status_code == 403
    monkeypatch.setattr("webhook.console.authority.monotonic", lambda: float("inf"))
    assert change(console, **bearer()).status_code == 303


def test_change_without_a_database_is_refused(make_console: Callable[..., FlaskClient], test_pages: TestPages) -> None:
    console = make_console(operator_database_url="postgresql://operator@127.0.0.1:1/postgres")
    assert change(console, **bearer()).status_code == 403
    assert test_pages.changes == []


def test_views_of_a_viewer_use_no_operators_login(bob: FlaskClient, admin: psycopg.Connection) -> None:
    assert bob.get("/console/test/reads/parked_events").status_code == 200
    assert sessions(admin, "usename = 'webhook_operator'") == 0


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_page_cannot_write(console: FlaskClient, admin: psycopg.Connection, name: str) -> None:
    log_in(console, name, f"token-of-{name}")
    assert console.get("/console/test/reads/begin_reconciliation").status_code == 503
    assert admin.execute("select count(*) from billing.reconciliations").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "select event_id from billing.parked_events for update",
        "insert into billing.parked_events default values returning event_id",
        "select billing.begin_reconciliation(now(), now())",
        "set transaction read write; delete from billing.parked_events returning event_id",
    ],
)
def test_page_reads_in_a_read_only_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr("webhook.console.reading.query", lambda _: statement)
    ledger = PageLedger(database.url, lambda: Deadline(5))
    with pytest.raises(LedgerRefusedError) as refused:
        ledger.rows("any")
    assert "read-only" in str(refused.value.__cause__) or "read-write" in str(refused.value.__cause__)
    ledger.close()
