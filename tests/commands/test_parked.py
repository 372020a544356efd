"""`webhook parked`, `webhook retry` and `webhook discard`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import responses
from click.testing import Result

from support.commands import WEBHOOK, invoke
from support.databases import Database
from support.delivery import deliver_to
from support.operators import actions
from support.recorded import USER_ID, session_event
from support.stored_rows import entered_on, set_parked_age
from webhook.commands import parked
from webhook.commands.retry import retry
from webhook.ledger.ledger import Ledger
from webhook.remedies import REMEDIES

Webhook = Callable[..., Result]
EVENT = session_event()["id"]
PAYMENT = session_event()["data"]["object"]["payment_intent"]


@pytest.fixture
def webhook(database: Database, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    """Run a command with its output on a pipe."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("OPERATOR_DATABASE_URL", database.operator_url)
    monkeypatch.setenv("STRIPE_LIVEMODE", "false")
    return invoke


@pytest.fixture
def deliver(ledger: Ledger) -> Callable[[dict[str, Any]], str]:
    """Deliver an event and return its outcome."""
    return lambda event: deliver_to(ledger, event).name


@pytest.fixture
def park(deliver: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], None]:
    """Deliver an event that will be parked."""

    def park(event: dict[str, Any]) -> None:
        assert deliver(event) == "parked"

    return park


Park = Callable[[dict[str, Any]], None]
Deliver = Callable[[dict[str, Any]], str]


def sign_up(admin: psycopg.Connection[Any]) -> None:
    admin.execute("insert into auth.users (id) values (%s)", [USER_ID])


def test_parked_on_a_pipe_prints_tab_separated_fields(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    set_parked_age(admin, "3 hours")
    assert webhook("parked").stdout == f"{EVENT}\tunknown_user\t3h 0m\t{PAYMENT}\t{USER_ID}\n"


def test_parked_lists_the_oldest_event_first(webhook: Webhook, park: Park, admin: psycopg.Connection[Any]) -> None:
    for event_id in ("evt_b", "evt_a"):
        park(session_event(event_id=event_id))
    set_parked_age(admin, "3 hours", "evt_b")
    set_parked_age(admin, "50 hours", "evt_a")
    lines = webhook("parked").stdout.splitlines()
    assert [line.split("\t")[:3] for line in lines] == [
        ["evt_a", "unknown_user", "2d 2h"],
        ["evt_b", "unknown_user", "3h 0m"],
    ]


def test_parked_with_no_events_on_a_pipe_prints_nothing(webhook: Webhook) -> None:
    assert (webhook("parked").stdout, webhook("parked").exit_code) == ("", 0)


def test_parked_on_a_terminal_prints_a_table_and_remedies(
    webhook: Webhook,
    park: Park,
    admin: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del webhook
    park(session_event())
    set_parked_age(admin, "3 hours")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    parked.show_all(as_json=False)
    heading, row, _, remedy = capsys.readouterr().out.splitlines()
    assert heading.split() == ["EVENT", "TYPE", "PAYMENT", "USER", "AGE", "REASON"]
    assert row.split() == [EVENT, "checkout.session.completed", PAYMENT, USER_ID, "3h", "0m", "unknown_user"]
    assert remedy == f"unknown_user: {REMEDIES['unknown_user']}"


def test_parked_with_no_events_on_a_terminal_prints_a_line(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del webhook
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    parked.show_all(as_json=False)
    assert capsys.readouterr().out == "Nothing is parked.\n"


def test_parked_with_an_event_id_prints_the_whole_event(webhook: Webhook, park: Park) -> None:
    park(session_event())
    fields, payload = webhook("parked", EVENT).stdout.split("{", 1)
    assert [line.split()[0] for line in fields.splitlines()] == [
        *("event", "type", "reason", "payment", "user", "payer", "age", "to")
    ]
    assert json.loads("{" + payload) == session_event()


def test_parked_reasons_of_the_database_each_have_a_remedy(admin: psycopg.Connection[Any]) -> None:
    query = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'parked_events_reason_known'"
    [(definition,)] = admin.execute(query).fetchall()
    assert all(f"'{reason}'" in definition for reason in REMEDIES)
    assert definition.count("::text") == len(REMEDIES)


def test_retry_after_the_sign_up_settles_the_event(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    sign_up(admin)
    result = webhook("retry")
    assert (result.stdout, result.exit_code) == (f"{EVENT}\trecorded\n", 0)
    assert result.stderr == "1 settled, 0 still parked\n"
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]


def test_retry_that_settles_an_event_deletes_its_payload(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    sign_up(admin)
    webhook("retry", EVENT)
    assert admin.execute("select payload from billing.parked_events").fetchall() == [(None,)]
    assert webhook("parked").stdout == ""


def test_retry_that_cannot_settle_an_event_leaves_it_parked(webhook: Webhook, park: Park) -> None:
    park(session_event(user_id=None))
    result = webhook("retry")
    assert (result.stdout, result.exit_code) == (f"{EVENT}\tparked\tmissing_user\n", 1)
    assert "Without STRIPE_API_KEY, corrections of metadata and prices at Stripe are not read." in result.stderr
    assert webhook("parked").stdout.startswith(f"{EVENT}\tmissing_user")


def test_retry_after_a_manual_grant_settles_the_event(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    sign_up(admin)
    park(session_event(credits="ten", payment_intent="pi_1"))
    admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " values (%s, 100, 'PURCHASE', 'pi_1', 'pi_1', 1000, 'usd')",
        [USER_ID],
    )
    note = f"settled by pi_1: +100 for {USER_ID} on {entered_on(admin)} (entered by hand)"
    assert webhook("retry").stdout == f"{EVENT}\tduplicate\t{note}\n"
    assert webhook("parked").stdout == ""


def test_retry_of_an_event_with_zero_credits_resolves_it(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    admin.execute("""update billing.parked_events set payload = replace(payload::text, '"100"', '"0"')::json""")
    assert webhook("retry").stdout == f"{EVENT}\tignored\tzero_credits\n"
    assert webhook("parked").stdout == ""


@pytest.mark.parametrize(
    ("event", "environment", "reason"),
    [
        (session_event() | {"account": "acct_1"}, {}, "connected_account: set STRIPE_ACCOUNT"),
        (session_event(credits=None, user_id=None), {}, "no_credits: set STRIPE_API_KEY"),
        (
            session_event(credits=None, user_id=None),
            {"STRIPE_API_KEY": "rk_live_1", "STRIPE_LIVEMODE": "true"},
            "no_credits: set STRIPE_LIVEMODE",
        ),
    ],
    ids=["connected account", "no API key", "API key of the other mode"],
)
def test_retry_with_missing_settings_leaves_the_event_parked(  # noqa: PLR0913, PLR0917 - fixtures
    webhook: Webhook,
    admin: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    event: dict[str, Any],
    environment: dict[str, str],
    reason: str,
) -> None:
    """The payload is kept, and the reason names the setting."""
    admin.execute(
        "select billing.park(%s, 'checkout.session.completed', 'missing_user', 'pi_1', %s)", [EVENT, json.dumps(event)]
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = webhook("retry")
    assert (result.stdout, result.exit_code) == (f"{EVENT}\tparked\t{reason}\n", 1)
    assert admin.execute("select from billing.parked_events where payload is not null").rowcount == 1


def test_retry_in_live_mode_settles_a_parked_live_event(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    park(session_event() | {"livemode": True})
    sign_up(admin)
    monkeypatch.setenv("STRIPE_LIVEMODE", "true")
    assert webhook("retry").stdout == f"{EVENT}\trecorded\n"


def test_retry_of_one_event_leaves_the_others_parked(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    for event_id in ("evt_a", "evt_b"):
        park(session_event(event_id=event_id, payment_intent=f"pi_{event_id}"))
    sign_up(admin)
    assert webhook("retry", "evt_b").stdout == "evt_b\trecorded\n"
    assert webhook("parked").stdout.startswith("evt_a\t")


def test_retry_with_a_failed_lookup_settles_the_other_events(
    webhook: Webhook,
    park: Park,
    admin: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    stripe_api: responses.RequestsMock,
) -> None:
    park(session_event(event_id="evt_b", payment_intent="pi_b"))
    sign_up(admin)
    park(session_event(event_id="evt_a", credits=None, payment_intent="pi_a"))
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_1")
    stripe_api.get(re.compile(".*/line_items"), status=401, json={"error": {"message": "no"}})
    result = webhook("retry")
    assert (result.exit_code, result.stdout) == (2, "evt_b\trecorded\nevt_a\tparked\tmissing_credits\n")
    assert result.stderr.startswith("1 settled, 1 still parked\nwebhook: Stripe: AuthenticationError, status 401\n")
    assert webhook("parked").stdout.startswith("evt_a\tmissing_credits")
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]


def still_parked(admin: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return admin.execute("select event_id from billing.parked_events where resolved_at is null").fetchall()


def test_retry_with_no_parked_events_succeeds(webhook: Webhook) -> None:
    result = webhook("retry")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "0 settled, 0 still parked\n", 0)


def test_retry_of_two_events_of_one_sale_settles_both(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event(event_id="evt_a"))
    park(session_event(event_id="evt_b"))
    sign_up(admin)
    assert webhook("retry").stdout == (
        f"evt_a\trecorded\nevt_b\tduplicate\tsettled by {PAYMENT}: +100 for {USER_ID}"
        f" on {entered_on(admin)} (event evt_a)\n"
    )


def test_retry_on_a_terminal_shows_progress_and_results(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    del webhook
    park(session_event())
    sign_up(admin)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    assert retry([])
    out, err = capfd.readouterr()
    assert out == f"{EVENT}\trecorded\n"
    assert "1/1" in err


# A null character and half of a surrogate pair: JSON can contain them, Postgres's text type cannot.
AWKWARD = {"nul": "\0", "half": "\ud800", "euro": "€"}


def awkward_event() -> dict[str, Any]:
    event = session_event()
    event["data"]["object"]["metadata"] |= AWKWARD
    return event


def test_parked_as_json_prints_a_line_without_the_payload(webhook: Webhook, park: Park) -> None:
    park(session_event())
    [line] = webhook("parked", "--json").stdout.splitlines()
    event = json.loads(line)
    assert datetime.fromisoformat(event.pop("parked_at")).tzinfo is not None
    assert event == {
        "event_id": EVENT,
        "event_type": "checkout.session.completed",
        "reason": "unknown_user",
        "payment_id": PAYMENT,
        "user": USER_ID,
        "payer_email": "buyer@example.com",
        "age_seconds": 0,
        "what_to_do": REMEDIES["unknown_user"].replace("EVENT", EVENT),
        "resolution": None,
        "resolved_at": None,
        "discarded_by": None,
        "discard_reason": None,
    }


def test_parked_as_json_with_no_events_prints_nothing(webhook: Webhook) -> None:
    assert webhook("parked", "--json").stdout == ""


def test_parked_event_as_json_includes_its_payload(webhook: Webhook, park: Park) -> None:
    park(awkward_event())
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["payload"] == awkward_event()


def test_parked_event_as_json_keeps_the_numbers_of_its_payload(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    admin.execute("""update billing.parked_events set payload = '{"huge": 1e999, "exact": 0.10}'""")
    assert webhook("parked", EVENT, "--json").stdout.endswith(', "payload": {"huge": 1e999, "exact": 0.10}}\n')


def test_parked_event_with_line_breaks_is_one_line_of_json(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    """Stripe pretty-prints the events that it delivers."""
    park(session_event())
    admin.execute("update billing.parked_events set payload = %s", ['{\r\n  "id": "a\u2028b"\n}'])
    [line] = webhook("parked", EVENT, "--json").stdout.split("\n")[:-1]
    assert json.loads(line)["payload"] == {"id": "a\u2028b"}


def test_discard_unlists_the_event_and_keeps_its_payload(webhook: Webhook, park: Park) -> None:
    park(session_event())
    result = webhook("discard", EVENT, "--reason", "a test of ours")
    assert (result.stdout, result.exit_code, webhook("parked").stdout) == (f"{EVENT}\tdiscarded\n", 0, "")
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["payload"] == session_event()


def test_discarded_payload_is_hidden_after_30_days(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    """It is hidden at once, and dropped when the next event is parked or discarded."""
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours")
    admin.execute("update billing.parked_events set resolved_at = resolved_at - interval '30 days'")
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["payload"] is None
    assert webhook("parked", EVENT).stdout.endswith("why      a test of ours\n")
    park(session_event(event_id="evt_next"))
    kept = admin.execute("select event_id from billing.parked_events where payload is not null").fetchall()
    assert kept == [("evt_next",)]


def test_discard_drops_payloads_discarded_30_days_ago(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    for event_id in ("evt_old", "evt_new"):
        park(session_event(event_id=event_id))
    webhook("discard", "evt_old", "--reason", "a test of ours")
    admin.execute("update billing.parked_events set resolved_at = resolved_at - interval '31 days'")
    webhook("discard", "evt_new", "--reason", "a test of ours")
    kept = admin.execute("select event_id from billing.parked_events where payload is not null").fetchall()
    assert kept == [("evt_new",)]


def test_discard_stores_an_action_and_logs_a_warning(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    """The log line names neither the reason nor a user."""
    park(session_event())
    logged = json.loads(webhook("discard", EVENT, "--reason", "a test", "--by", "ann", LOG_FORMAT="json").stderr)
    assert actions(admin) == [("discard", EVENT, "a test", 0, 0)]
    del logged["time"]
    assert logged == {
        "message": "operator action",
        "level": "warning",
        "action": "discard",
        "number": 1,
        "by": "ann",
        "channel": "cli",
    }


def test_discard_records_operator_reason_and_time(webhook: Webhook, park: Park) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours", "--by", "Ann")
    event = json.loads(webhook("parked", EVENT, "--json").stdout)
    assert (event["resolution"], event["discarded_by"], event["discard_reason"]) == (
        "discarded",
        "Ann as webhook_operator",
        "a test of ours",
    )
    assert datetime.now(UTC) - datetime.fromisoformat(event["resolved_at"]) < timedelta(minutes=5)
    assert event["what_to_do"] is None


def test_discarded_event_is_shown_with_operator_and_reason(webhook: Webhook, park: Park) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours", "--by", "Ann")
    fields, payload = webhook("parked", EVENT).stdout.split("{", 1)
    *_, end, by, reason = fields.splitlines()
    assert end.startswith("resolved discarded 2")
    assert (by, reason) == ("by       Ann as webhook_operator", "why      a test of ours")
    assert json.loads("{" + payload) == session_event()


def test_discard_without_by_records_the_system_user(webhook: Webhook, park: Park) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours")
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["discarded_by"] == f"{user} as webhook_operator"


def test_discard_with_one_unknown_event_discards_none(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    assert webhook("discard", EVENT, "evt_none", "--reason", "a test of ours").exit_code == 2
    assert still_parked(admin) == [(EVENT,)]


def test_discard_repeated_succeeds_and_keeps_the_first_reason(
    webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    """The result of the first discard may have been lost."""
    park(session_event())
    results = [webhook("discard", EVENT, "--reason", why) for why in ("first", "second")]
    assert [result.stdout for result in results] == [f"{EVENT}\tdiscarded\n"] * 2
    assert admin.execute("select discard_reason from billing.parked_events").fetchall() == [("first",)]
    assert len(actions(admin)) == 1


def test_discard_by_the_workers_login_names_the_grant(
    webhook: Webhook, park: Park, database: Database, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    result = run("discard", EVENT, "--reason", "mine", DATABASE_URL=database.url)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("grant billing_operator to webhook_worker\n")
    assert still_parked(admin) == [(EVENT,)]
    assert webhook


@pytest.mark.parametrize("reason", [(), ("",), (" ",), ("two\nlines",), ("\udcff",)])
def test_discard_without_a_valid_reason_is_rejected(
    reason: tuple[str, ...], webhook: Webhook, park: Park, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    assert webhook("discard", EVENT, *(("--reason", *reason) if reason else ())).exit_code == 2
    assert still_parked(admin) == [(EVENT,)]


def test_discarded_event_redelivered_stays_discarded(
    webhook: Webhook, park: Park, deliver: Deliver, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours")
    assert deliver(session_event()) == "duplicate"
    assert still_parked(admin) == []
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["resolution"] == "discarded"


def test_discarded_event_redelivered_after_sign_up_is_settled(
    webhook: Webhook, park: Park, deliver: Deliver, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours")
    sign_up(admin)
    assert deliver(session_event()) == "recorded"
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]
    assert json.loads(webhook("parked", EVENT, "--json").stdout)["discard_reason"] == "a test of ours"


def test_discarded_event_does_not_block_its_sales_other_event(
    webhook: Webhook, park: Park, deliver: Deliver, admin: psycopg.Connection[Any]
) -> None:
    park(session_event())
    webhook("discard", EVENT, "--reason", "a test of ours")
    sign_up(admin)
    assert deliver(session_event(event_id="evt_other")) == "recorded"
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]


@pytest.mark.parametrize(
    "values",
    [
        "'discarded', now(), 'Ann', null",
        "'discarded', now(), null, 'why'",
        "'settled', now(), 'Ann', 'why'",
        "'settled', null, null, null",
        "'lost', now(), null, null",
        "null, now(), null, null",
        "null, null, 'Ann', 'why'",
    ],
)
def test_parked_event_half_resolved_violates_a_constraint(values: str, admin: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="parked_events_resolution_whole"):
        admin.execute(f"""
            insert into billing.parked_events
                (event_id, event_type, reason, payload, resolution, resolved_at, discarded_by, discard_reason)
            values ('evt_1', 'some.type', 'unreadable', {"null" if "now()" in values else "'{}'"}, {values})
        """)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [WEBHOOK, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("parked", "evt_none"), 1, "never parked: evt_none (no event, payment, user or payer of a parked event)"),
        (("parked", "evt_\udcff"), 1, "never parked: evt_\\udcff (no event, payment, user or payer of a parked event)"),
        (("retry", "evt_none"), 2, "never parked: evt_none"),
        (("discard", "--reason", "mine", "evt_none"), 2, "Not parked (any more): evt_none. Nothing was discarded."),
        (("discard", "--reason", "mine", "evt_\udcff"), 2, "not parked (any more): evt_\\udcff"),
    ],
)
def test_command_for_an_event_not_parked_prints_one_line(
    command: tuple[str, ...], code: int, message: str, database: Database
) -> None:
    done = run(*command, DATABASE_URL=database.operator_url, STRIPE_LIVEMODE="false")
    assert (done.returncode, done.stderr) == (code, f"webhook: {message}\n")


@pytest.mark.parametrize("command", [("parked",), ("retry",), ("discard", "--reason", "mine", "evt_1")])
def test_command_without_a_database_prints_one_line(command: tuple[str, ...]) -> None:
    done = run(*command, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", STRIPE_LIVEMODE="false")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("webhook: no connection: ")


def test_retry_without_a_mode_names_the_variable(database: Database) -> None:
    done = run("retry", DATABASE_URL=database.url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "STRIPE_LIVEMODE" in done.stderr
