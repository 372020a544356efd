"""`webhook parked` and `webhook retry`, as an operator types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import responses
from click.testing import CliRunner, Result
from conftest import Database
from recorded import USER_ID, session_event

from webhook import parked
from webhook.cli import commands
from webhook.deliveries import read_event, settle
from webhook.ledger import Ledger
from webhook.settings import Guards
from webhook.stripe_api import StripeUnavailable

Webhook = Callable[..., Result]
EVENT = session_event()["id"]


@pytest.fixture
def webhook(database: Database, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    """The command, on a pipe."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("STRIPE_LIVEMODE", "false")
    return lambda *arguments: CliRunner().invoke(commands, arguments, catch_exceptions=False)


@pytest.fixture
def park(database: Database) -> Callable[[dict[str, Any]], None]:
    """Deliver an event that will be parked."""

    def deliver(event: dict[str, Any]) -> None:
        ledger = Ledger(database.url)
        text = json.dumps(event)
        assert settle(read_event(text), text, ledger, Guards(livemode=False)).name == "parked"
        ledger.close()

    return deliver


Park = Callable[[dict[str, Any]], None]


def sign_up(admin: psycopg.Connection[Any]) -> None:
    admin.execute("insert into auth.users (id) values (%s)", [USER_ID])


def test_parked_on_a_pipe_prints_id_reason_and_age_separated_by_tabs(webhook: Webhook, park: Park) -> None:
    park(session_event())
    assert webhook("parked").stdout == f"{EVENT}\tunknown_user\t0s\n"


def test_parked_oldest_event_comes_first(webhook: Webhook, park: Park, admin: psycopg.Connection[Any]) -> None:
    for event_id in ("evt_b", "evt_a"):
        park(session_event(event_id=event_id))
    admin.execute("update billing.parked_events set parked_at = now() - interval '50 hours' where event_id = 'evt_a'")
    assert webhook("parked").stdout == "evt_a\tunknown_user\t2d 2h\nevt_b\tunknown_user\t0s\n"


def test_parked_with_nothing_waiting_prints_nothing_on_a_pipe(webhook: Webhook) -> None:
    assert (webhook("parked").stdout, webhook("parked").exit_code) == ("", 0)


def test_parked_on_a_terminal_is_a_table_that_says_what_to_do(
    webhook: Webhook, park: Park, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del webhook
    park(session_event())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    parked.show_all()
    heading, row, _, remedy = capsys.readouterr().out.splitlines()
    assert heading.split() == ["EVENT", "TYPE", "AGE", "REASON"]
    assert row.split() == [EVENT, "checkout.session.completed", "0s", "unknown_user"]
    assert remedy == f"unknown_user: {parked.REMEDIES['unknown_user']}"


def test_parked_on_a_terminal_with_nothing_waiting_says_so(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del webhook
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    parked.show_all()
    assert capsys.readouterr().out == "Nothing is parked.\n"


def test_parked_event_named_is_shown_whole(webhook: Webhook, park: Park) -> None:
    park(session_event())
    fields, payload = webhook("parked", EVENT).stdout.split("{", 1)
    assert [line.split()[0] for line in fields.splitlines()] == ["event", "type", "reason", "age", "to"]
    assert json.loads("{" + payload) == session_event()


def test_parked_reasons_of_the_database_each_have_a_remedy(admin: psycopg.Connection[Any]) -> None:
    query = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'parked_events_reason_known'"
    [(definition,)] = admin.execute(query).fetchall()
    assert all(f"'{reason}'" in definition for reason in parked.REMEDIES)
    assert definition.count("::text") == len(parked.REMEDIES)


def test_retry_after_the_sign_up_settles_the_event(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    sign_up(admin)
    result = webhook("retry")
    assert (result.stdout, result.stderr) == (f"{EVENT}\trecorded\n", "1 settled, 0 still parked\n")
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]


def test_retry_that_settles_drops_the_payload(webhook: Webhook, park: Park, admin: psycopg.Connection[Any]) -> None:
    park(session_event())
    sign_up(admin)
    webhook("retry", EVENT)
    assert admin.execute("select payload from billing.parked_events").fetchall() == [(None,)]
    assert webhook("parked").stdout == ""


def test_retry_of_what_cannot_be_settled_leaves_it_parked(webhook: Webhook, park: Park) -> None:
    park(session_event(user_id=None))
    result = webhook("retry")
    assert (result.stdout, result.exit_code) == (f"{EVENT}\tparked\tmissing_user\n", 0)
    assert webhook("parked").stdout.startswith(f"{EVENT}\tmissing_user")


def test_retry_after_a_grant_by_hand_settles_the_event(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    sign_up(admin)
    park(session_event(credits="ten", payment_intent="pi_1"))
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " values (%s, 100, 'PURCHASE', 'pi_1', 'pi_1', 1000, 'usd')",
        [USER_ID],
    )
    assert webhook("retry").stdout == f"{EVENT}\tduplicate\n"
    assert webhook("parked").stdout == ""


def test_retry_of_what_is_not_about_credits_any_more_ends_its_waiting(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    admin.execute("""update billing.parked_events set payload = replace(payload::text, '"100"', '"0"')::json""")
    assert webhook("retry").stdout == f"{EVENT}\tignored\tzero_credits\n"
    assert webhook("parked").stdout == ""


def test_retry_in_the_right_mode_settles_what_came_in_the_wrong_one(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    park(session_event() | {"livemode": True})
    sign_up(admin)
    monkeypatch.setenv("STRIPE_LIVEMODE", "true")
    assert webhook("retry").stdout == f"{EVENT}\trecorded\n"


def test_retry_of_named_events_leaves_the_others(webhook: Webhook, park: Park, admin: psycopg.Connection[Any]) -> None:
    for event_id in ("evt_a", "evt_b"):
        park(session_event(event_id=event_id, payment_intent=f"pi_{event_id}"))
    sign_up(admin)
    assert webhook("retry", "evt_b").stdout == "evt_b\trecorded\n"
    assert webhook("parked").stdout.startswith("evt_a\t")


def test_retry_that_meets_trouble_settles_the_others_and_says_so(
    webhook: Webhook,
    park: Park,
    admin: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    stripe_api: responses.RequestsMock,
) -> None:
    park(session_event(event_id="evt_a", credits=None, payment_intent="pi_a"))
    park(session_event(event_id="evt_b", payment_intent="pi_b"))
    sign_up(admin)
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_1")
    stripe_api.get(re.compile(".*/line_items"), status=401, json={"error": {"message": "no"}})
    with pytest.raises(StripeUnavailable, match="status 401"):
        webhook("retry")
    assert webhook("parked").stdout.startswith("evt_a\tmissing_credits")
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("webhook")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("command", ["parked", "retry"])
def test_event_that_is_not_parked_ends_the_command_with_one_line(command: str, database: Database) -> None:
    done = run(command, "evt_none", DATABASE_URL=database.url, STRIPE_LIVEMODE="false")
    assert (done.returncode, done.stderr) == (1, "webhook: not parked (any more): evt_none\n")


@pytest.mark.parametrize("command", ["parked", "retry"])
def test_database_away_ends_the_command_with_one_line(command: str) -> None:
    done = run(command, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", STRIPE_LIVEMODE="false")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("webhook: no connection: ")


def test_retry_without_a_mode_names_the_variable(database: Database) -> None:
    done = run("retry", DATABASE_URL=database.url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "STRIPE_LIVEMODE" in done.stderr
