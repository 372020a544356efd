"""Exit code 1 means that `reconcile` or `audit` found something. A run that is stopped exits with 2."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from support.commands import started
from support.databases import Database
from support.ledger_queries import WAITS, sessions
from support.model import new_id
from support.recorded import USER_ID, session_event
from support.stripe_stand_in import StripeStandIn
from support.waiting import eventually
from webhook import cli
from webhook.audit import checks as audit
from webhook.reconcile import run as reconcile
from webhook.settings import child_environment

Admin = psycopg.Connection[Any]

WAIT_TIMEOUT = 60
RECONCILE = ("reconcile", "--since", "1d")


@pytest.fixture
def stripe(stripe: StripeStandIn) -> StripeStandIn:
    """An account with three sales."""
    for _ in range(3):
        stripe.add_events(session_event(event_id=new_id("evt"), id=new_id("cs"), payment_intent=new_id("pi")))
    return stripe


@pytest.fixture
def environment(database: Database, admin: Admin, stripe: StripeStandIn) -> dict[str, str]:
    """The command's environment; the database has a user, and two parked events for an audit to report."""
    admin.execute("insert into auth.users (id) values (%s)", [USER_ID])
    for event_id, reason in (("evt_1", "unreadable"), ("evt_2", "missing_user")):
        payload = json.dumps(session_event(event_id=event_id, user_id=None, customer=None))
        admin.execute("select billing.park(%s, 'a.type', %s, null, %s)", [event_id, reason, payload])
    return child_environment(stripe.settings(database.url))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_reconcile_stopped_by_a_signal_reports_where_it_stopped(
    environment: dict[str, str], stripe: StripeStandIn, number: signal.Signals
) -> None:
    """It prints whole lines, and does not wait for Stripe's response."""
    requested, released = threading.Event(), threading.Event()

    def hold(path: str) -> None:
        if path == "/v1/disputes":
            requested.set()
            released.wait(WAIT_TIMEOUT)

    stripe.before_answer = hold
    with started(environment, *RECONCILE, "--json") as process:
        assert requested.wait(WAIT_TIMEOUT)
        process.send_signal(number)
        output, errors = process.communicate(timeout=WAIT_TIMEOUT)
    released.set()
    *items, summary = map(json.loads, output.splitlines())
    assert all(each["type"] == "item" for each in items)
    assert (process.returncode, summary["complete"]) == (2, False)
    assert summary["not_finished"][0] == "interrupted"
    assert "disputes: not read; interrupted" in summary["not_finished"]
    assert "webhook: disputes: not read; interrupted" in errors
    assert "run it again with --since 20" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_audit_stopped_by_a_signal_exits_with_2(
    environment: dict[str, str], database: Database, number: signal.Signals
) -> None:
    """It is stopped while it waits for a table's lock, and prints no finding."""
    with psycopg.connect(database.superuser_url) as other:
        other.execute("lock table billing.parked_events in access exclusive mode")
        with started(environment, "audit", "--json") as process:
            eventually(lambda: sessions(other, WAITS))
            process.send_signal(number)
            output, errors = process.communicate(timeout=WAIT_TIMEOUT)
    assert (process.returncode, output, errors) == (2, "", "webhook: interrupted\n")


def test_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """``nohup`` starts a command with SIGHUP ignored."""
    during = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(audit, "run", lambda *_, **__: during.append(signal.getsignal(signal.SIGHUP)) or True)
    result = CliRunner().invoke(cli.commands, ["audit"])
    assert (result.exit_code, during, signal.signal(signal.SIGHUP, before)) == (0, [signal.SIG_IGN], signal.SIG_IGN)


@pytest.mark.parametrize("command", [["audit"], [*RECONCILE]])
def test_command_with_a_bug_exits_with_2(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Standard error has the traceback and, as its last line, a summary for the operator."""
    for module in (audit, reconcile):
        monkeypatch.setattr(module, "run", lambda *_, **__: json.loads(""))
    result = CliRunner().invoke(cli.commands, command)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("webhook: bug: JSONDecodeError\n")
