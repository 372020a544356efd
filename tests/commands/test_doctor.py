"""`webhook doctor` reports each failed check, and still runs the other checks."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import psycopg
import pytest
import requests
import responses

from support.commands import Command
from support.databases import Database, login
from support.endpoints import ENDPOINTS, endpoint
from support.stripe_api import BASE, page
from webhook.events.event import read_event
from webhook.ledger.ledger import Ledger
from webhook.ledger.migrate import migrate
from webhook.ledger.schema import expected_version, triggers

KEY = "rk_test_doctors_key"
LISTS = ("checkout/sessions", "prices", "products", "invoices", "refunds", "payment_intents", "disputes", "events")
Mock = responses.RequestsMock
Admin = psycopg.Connection[Any]


class Metrics(ThreadingHTTPServer):
    """Responds as GET /metrics of a worker, and keeps the Authorization header of the last request."""

    status, body, authorization = 200, "", ""

    class Handler(BaseHTTPRequestHandler):
        server: Metrics

        def do_GET(self) -> None:
            self.server.authorization = self.headers.get("Authorization", "")
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(self.server.body.encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    def show(self, **secrets: tuple[int, float]) -> None:
        """Set the number of deliveries and the time of the last use of each secret."""
        self.body = "# TYPE webhook_verified_deliveries_total counter\n"
        for secret, (count, _) in secrets.items():
            self.body += f'webhook_verified_deliveries_total{{secret="{secret}"}} {count}.0\n'
        self.body += "# TYPE webhook_secret_last_used_timestamp_seconds gauge\n"
        for secret, (_, last) in secrets.items():
            self.body += f'webhook_secret_last_used_timestamp_seconds{{secret="{secret}"}} {last}\n'


@pytest.fixture
def metrics(stripe_api: Mock) -> Iterator[Metrics]:
    """The metrics of a worker that runs on this machine."""
    stripe_api.add_passthru("http://127.0.0.1:")
    with Metrics(("127.0.0.1", 0), Metrics.Handler) as server:
        server.show(first=(0, 0))
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def doctor(database: Database, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, with all settings that it needs except an API key."""
    others = ("MIGRATION_DATABASE_URL", "OPERATOR_DATABASE_URL", "METRICS_TOKEN", "CONSOLE_TOKENS")
    for name in ("STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_ACCOUNT", *others):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", str(metrics.server_port))
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_hidden")
    monkeypatch.setenv("STRIPE_LIVEMODE", "false")
    return Command(monkeypatch)


@pytest.fixture
def keyed(doctor: Command, monkeypatch: pytest.MonkeyPatch, stripe_api: Mock) -> Command:
    """The command with an API key that has every permission, and a correct endpoint."""
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    stripe_api.assert_all_requests_are_fired = False
    for each in LISTS:
        stripe_api.get(f"{BASE}/v1/{each}", json=page())
    stripe_api.get(ENDPOINTS, json=page(endpoint()))
    return doctor


def lines(doctor: Command, verdict: str) -> list[str]:
    """Return the lines with this verdict. Check that the exit code fits and that no secret is printed."""
    done = doctor("doctor")
    found = [tuple(line.split(maxsplit=1)) for line in done.out.splitlines()]
    assert done.code == (1 if "fail" in {name for name, _ in found} else 0)
    assert not any(secret in done.out + done.err for secret in ("whsec_hidden", "only-for-tests", KEY))
    return [text for name, text in found if name == verdict]


def test_doctor_of_a_healthy_worker_reports_no_failure(keyed: Command) -> None:
    assert lines(keyed, "fail") == lines(keyed, "skipped") == []
    assert f"schema: {expected_version()}" in lines(keyed, "ok")


def test_doctor_without_a_key_skips_stripe(doctor: Command) -> None:
    assert lines(doctor, "fail") == []
    skipped = ("API key mode", "API key permissions", "endpoint")
    assert lines(doctor, "skipped") == [f"{each}: no STRIPE_API_KEY" for each in skipped]


# Operators


def test_doctor_with_an_operators_login_names_it(
    doctor: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_DATABASE_URL", database.operator_url)
    assert "operator: webhook_operator may use webhook assign, adjust and discard" in lines(doctor, "ok")


def test_doctor_without_an_operators_login_names_the_setting(doctor: Command) -> None:
    """The worker needs none, so it is no failure."""
    assert "operator: webhook assign, adjust and discard need OPERATOR_DATABASE_URL" in lines(doctor, "ok")


def test_doctor_with_a_login_that_is_no_operator_fails(
    doctor: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_DATABASE_URL", database.url)
    [failure] = lines(doctor, "fail")
    assert failure.endswith("grant billing_operator to webhook_worker")


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("STRIPE_WEBHOOK_SECRET", "sk_test_1"),
        ("STRIPE_LIVEMODE", ""),
        ("STRIPE_LIVEMODE", "perhaps"),
        ("PORT", "http"),
        ("STRIPE_API_KEY", "pk_test_1"),
        ("MIGRATION_DATABASE_URL", "postgresql://postgres@db.example.com:6543/postgres"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "postgresql://worker:hunter2@more@db.example.com/postgres"),
        ("DATABASE_URL", "postgresql://worker:hunter2/more@db.example.com/postgres"),
    ],
)
def test_doctor_with_an_invalid_variable_names_it_and_continues(
    doctor: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    [failed] = lines(doctor, "fail")
    assert failed.startswith(f"{name} ")
    assert "hunter2" not in failed
    assert any(line.startswith(("parked", "database")) for line in (*lines(doctor, "ok"), *lines(doctor, "skipped")))


# The database


def test_doctor_without_a_database_reports_it_and_continues(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://worker:only-for-tests@127.0.0.1:1/none")
    [failed] = lines(keyed, "fail")
    assert failed.startswith("database: not reachable as service_role: no connection")
    assert "endpoint: we_1" in lines(keyed, "ok")


def test_doctor_with_a_login_without_service_role_reports_it(
    doctor: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute("drop role if exists stranger")
        superuser.execute("create role stranger login password 'only-for-tests'")
        monkeypatch.setenv("DATABASE_URL", login(database.url, "stranger"))
        [failed] = lines(doctor, "fail")
        superuser.execute("drop role stranger")
    assert "SQLSTATE 42501" in failed
    assert "grant service_role" in failed


def test_doctor_of_an_empty_database_suggests_migrate(
    doctor: Command, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.url)
    assert lines(doctor, "fail") == ["schema: not applied: run webhook migrate"]


def test_doctor_of_an_older_schema_suggests_migrate(doctor: Command, admin: Admin) -> None:
    admin.execute("create or replace function billing.schema_version() returns text language sql return '2020'")
    assert lines(doctor, "fail") == [f"schema: 2020, expected {expected_version()}: run webhook migrate"]


@pytest.mark.parametrize(
    "table",
    ["public.users", "public.transactions", "public.generation_holds", "billing.sales", "billing.parked_events"],
)
def test_doctor_of_a_table_without_row_level_security_names_it(doctor: Command, admin: Admin, table: str) -> None:
    admin.execute(f"alter table {table} disable row level security")
    assert lines(doctor, "fail") == [f"row-level security: alter table {table} enable row level security"]


@pytest.mark.parametrize(
    ("statement", "privilege"),
    [
        ("revoke execute on function billing.record(jsonb) from service_role", "execute on billing.record()"),
        ("revoke insert on public.transactions from service_role", "insert on public.transactions"),
        ("revoke select on public.users from service_role", "select on public.users"),
        (
            "revoke execute on function public.authorize_generation(uuid, bigint, uuid) from service_role",
            "execute on public.authorize_generation()",
        ),
        (
            "revoke execute on function public.refund_generation(uuid) from service_role",
            "execute on public.refund_generation()",
        ),
        (
            "revoke execute on function public.reserve_generation(uuid, bigint, uuid, interval) from service_role",
            "execute on public.reserve_generation()",
        ),
        (
            "revoke execute on function public.capture_generation(uuid, bigint) from service_role",
            "execute on public.capture_generation()",
        ),
        (
            "revoke execute on function public.release_generation(uuid) from service_role",
            "execute on public.release_generation()",
        ),
        ("revoke insert on public.generation_holds from service_role", "insert on public.generation_holds"),
        (
            "revoke update (captured_at) on public.generation_holds from service_role",
            "update on public.generation_holds.captured_at",
        ),
        ("revoke update (email) on public.users from service_role", "update on public.users.email"),
    ],
)
def test_doctor_of_a_missing_privilege_names_it(doctor: Command, admin: Admin, statement: str, privilege: str) -> None:
    admin.execute(statement)
    assert lines(doctor, "fail") == [f"permissions: service_role lacks {privilege}: grant it"]


@pytest.mark.parametrize(
    ("role", "statement", "privilege"),
    [
        ("service_role", "update on public.transactions", "update on public.transactions"),
        ("service_role", "update (amount) on public.transactions", "update on public.transactions"),
        ("service_role", "delete on public.transactions", "delete on public.transactions"),
        ("service_role", "update on public.users", "update on public.users.credits_balance"),
        ("service_role", "execute on function billing.erase_user(uuid)", "execute on billing.erase_user()"),
        ("service_role", "update (amount) on public.generation_holds", "update on public.generation_holds.amount"),
        ("service_role", "delete on public.generation_holds", "delete on public.generation_holds"),
        ("anon", "select on public.generation_holds", "select on public.generation_holds"),
        (
            "authenticated",
            "update (expires_at) on public.generation_holds",
            "update on public.generation_holds",
        ),
        (
            "authenticated",
            "execute on function public.release_generation(uuid)",
            "execute on public.release_generation(uuid)",
        ),
        ("service_role", "insert on billing.operator_actions", "insert on billing.operator_actions"),
        ("service_role", "update (by) on billing.operator_actions", "update on billing.operator_actions"),
        ("service_role", "update (user_id) on billing.assignments", "update on billing.assignments"),
        ("service_role", "truncate on billing.assignments", "truncate on billing.assignments"),
        (
            "service_role",
            "execute on function billing.discard(text[], text, text, text)",
            "execute on billing.discard()",
        ),
        ("anon", "usage on schema billing", "usage of schema billing"),
        ("anon", "select on billing.sales", "select on billing.sales"),
        ("anon", "select on public.users", "select on public.users"),
        ("authenticated", "insert (amount) on public.transactions", "insert on public.transactions"),
        ("authenticated", "execute on function billing.record(jsonb)", "execute on billing.record(jsonb)"),
        (
            "authenticated",
            "execute on function public.authorize_generation(uuid, bigint, uuid)",
            "execute on public.authorize_generation(uuid,bigint,uuid)",
        ),
        ("anon", "execute on function public.refund_generation(uuid)", "execute on public.refund_generation(uuid)"),
    ],
)
def test_doctor_of_an_excess_privilege_names_it(
    doctor: Command, admin: Admin, role: str, statement: str, privilege: str
) -> None:
    admin.execute(f"grant {statement} to {role}")
    assert lines(doctor, "fail") == [f"permissions: {role} has {privilege}: revoke it"]


TRIGGERS = {trigger.name: trigger.table_name for trigger in triggers()}
"""The table of each trigger."""


@pytest.fixture
def superuser(database: Database) -> Iterator[Admin]:
    """An autocommit connection that may do anything."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_doctor_of_a_missing_trigger_gives_its_statement(doctor: Command, superuser: Admin, trigger: str) -> None:
    """The statement makes exactly the trigger of the migrations."""
    table = TRIGGERS[trigger]
    definition = f"select pg_get_triggerdef(oid) from pg_trigger where tgname = '{trigger}'"
    before = superuser.execute(definition).fetchall()
    superuser.execute(f"drop trigger {trigger} on {table}")
    [failed] = lines(doctor, "fail")
    subject, _, remedy = failed.rpartition(": ")
    assert subject == f"triggers: {trigger} on {table} is missing"
    superuser.execute(remedy)
    assert lines(doctor, "fail") == []
    assert superuser.execute(definition).fetchall() == before


@pytest.mark.parametrize(
    ("state", "word"), [("disable trigger", "disabled"), ("enable replica trigger", "enabled only for replication")]
)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_doctor_of_a_disabled_trigger_gives_the_remedy(
    doctor: Command, superuser: Admin, trigger: str, state: str, word: str
) -> None:
    table = TRIGGERS[trigger]
    superuser.execute(f"alter table {table} {state} {trigger}")
    remedy = f"alter table {table} enable trigger {trigger}"
    assert lines(doctor, "fail") == [f"triggers: {trigger} on {table} is {word}: {remedy}"]
    superuser.execute(remedy)
    assert lines(doctor, "fail") == []


def test_doctor_of_a_replaced_trigger_names_its_function(doctor: Command, superuser: Admin) -> None:
    superuser.execute(
        """
        create function public.mine() returns trigger language plpgsql as 'begin return new; end';
        create or replace trigger billing_account_created after insert on auth.users
            for each row execute function public.mine()
        """
    )
    [failed] = lines(doctor, "fail")
    subject, _, remedy = failed.rpartition(": ")
    assert subject == "triggers: billing_account_created on auth.users calls public.mine()"
    superuser.execute(remedy)
    assert lines(doctor, "fail") == []


def test_doctor_of_disabled_foreign_keys_names_them(doctor: Command, superuser: Admin) -> None:
    superuser.execute("alter table public.users disable trigger all")
    failed = lines(doctor, "fail")
    assert any("users_id_fkey on public.users is a foreign key whose trigger is disabled" in line for line in failed)
    superuser.execute("alter table public.users enable trigger all")
    assert lines(doctor, "fail") == []


@pytest.mark.parametrize("place", ["database {}", "role webhook_worker in database {}"])
def test_doctor_of_a_replication_role_names_its_place(
    doctor: Command, superuser: Admin, database: Database, place: str
) -> None:
    """With `session_replication_role = replica` no trigger fires at all."""
    place = place.format(database.name)
    superuser.execute(f"alter {place} set session_replication_role = replica")
    problem = f"session_replication_role of {place} is replica, which disables every trigger"
    assert lines(doctor, "fail") == [f"triggers: {problem}: alter {place} reset session_replication_role"]


def test_doctor_of_a_replication_role_in_the_url_reports_it(
    doctor: Command, superuser: Admin, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser.execute("grant set on parameter session_replication_role to webhook_worker")
    monkeypatch.setenv("DATABASE_URL", f"{database.url}?options=-c%20session_replication_role%3Dreplica")
    try:
        [failed] = lines(doctor, "fail")
    finally:
        superuser.execute("revoke set on parameter session_replication_role from webhook_worker")
    assert failed.startswith("triggers: session_replication_role of the client is replica")


def test_doctor_counts_accounts_without_a_user(
    doctor: Command, database: Database, admin: Admin, superuser: Admin
) -> None:
    """`webhook migrate` is the remedy."""
    admin.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'a@example.com')")
    superuser.execute("set session_replication_role = replica")
    superuser.execute("insert into auth.users (id) values (gen_random_uuid())")
    superuser.execute("update public.users set email = 'old@example.com'")
    assert lines(doctor, "fail") == [
        "accounts: 1 in auth.users without a row in public.users: run webhook migrate",
        "accounts: 1 whose email differs in public.users: run webhook migrate",
    ]
    migrate(database.admin_url)
    assert lines(doctor, "fail") == []


def test_doctor_with_parked_events_counts_them(doctor: Command, database: Database) -> None:
    ledger = Ledger(database.url)
    ledger.park(read_event('{"id": "evt_1", "type": "t", "data": {"object": {}}}'), "unreadable", None, "{}")
    ledger.close()
    [failed] = lines(doctor, "fail")
    assert failed.startswith("parked events: 1, the oldest is evt_1 (unreadable), since 20")


# Deliveries per signing secret

NOON = 1795608000
"""2026-11-25 12:00:00 UTC."""
ROTATION = "whsec_hidden_new,whsec_hidden_old"


def secret_lines(doctor: Command) -> list[str]:
    return [line for line in lines(doctor, "ok") if line.startswith("signing secret")]


def test_doctor_counts_the_deliveries_of_the_signing_secret(doctor: Command, metrics: Metrics) -> None:
    metrics.show(first=(12, NOON))
    assert secret_lines(doctor) == [
        "signing secret first: 12 deliveries since the worker started, last used 2026-11-25 12:00:00 UTC"
    ]


def test_doctor_with_several_secrets_explains_the_counts(
    doctor: Command, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives no verdict: the second secret may be an old one, or that of a second endpoint."""
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", ROTATION)
    metrics.show(first=(9, NOON), second=(0, 0))
    assert secret_lines(doctor) == [
        "signing secret first: 9 deliveries since the worker started, last used 2026-11-25 12:00:00 UTC",
        "signing secret second: 0 deliveries since the worker started, last used never",
        (
            "signing secrets: the old one of a rotation can go once the new one is used and the count of the old one "
            "stays the same, on every machine"
        ),
    ]


@pytest.mark.parametrize(
    ("configured", "counts"),
    [("whsec_hidden", {"first": (1, NOON), "second": (1, NOON)}), (ROTATION, {"first": (1, NOON)})],
)
def test_doctor_of_a_worker_with_other_secrets_skips_them(
    doctor: Command,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    configured: str,
    counts: dict[str, tuple[int, float]],
) -> None:
    """A worker that was not restarted counts for the secrets that it was started with."""
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", configured)
    metrics.show(**counts)
    assert secret_lines(doctor) == []
    [skipped] = [line for line in lines(doctor, "skipped") if "signing secret" in line]
    assert skipped.endswith("restart the worker")


def test_doctor_sends_the_metrics_token(doctor: Command, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", "hidden")
    assert len(secret_lines(doctor)) == 1
    assert metrics.authorization == "Bearer hidden"


def test_doctor_requests_the_metrics_without_a_proxy(doctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert len(secret_lines(doctor)) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, "", "rejects METRICS_TOKEN"),
        (404, "", "answers 404"),
        (200, "<html>", "does not contain the worker's metrics"),
        (200, "up 1\n", "does not contain the worker's metrics"),
    ],
)
def test_doctor_without_usable_metrics_skips_the_signing_secrets(
    doctor: Command, metrics: Metrics, status: int, body: str, reason: str
) -> None:
    metrics.status, metrics.body = status, body
    [skipped] = [line for line in lines(doctor, "skipped") if "signing secret" in line]
    assert skipped == f"deliveries per signing secret: http://127.0.0.1:{metrics.server_port}/metrics {reason}"


def test_doctor_without_a_worker_skips_the_signing_secrets(doctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    line = "deliveries per signing secret: no worker answers at http://127.0.0.1:1/metrics"
    assert line in lines(doctor, "skipped")
    assert lines(doctor, "fail") == []


# Stripe


def test_doctor_with_a_key_of_the_other_mode_reports_it(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_LIVEMODE", "true")
    assert lines(keyed, "fail") == ["API key mode: STRIPE_API_KEY is for test mode, STRIPE_LIVEMODE is for live mode"]


def test_doctor_with_a_key_without_a_mode_skips_that_check(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_doctors")
    assert lines(keyed, "skipped") == ["API key mode: the key does not start with a prefix that names the mode"]


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("checkout/sessions", "Checkout Sessions: Read"),
        ("prices", "Prices: Read"),
        ("products", "Products: Read"),
        ("invoices", "Invoices: Read"),
        ("refunds", "Charges and Refunds: Read"),
    ],
)
def test_doctor_with_a_missing_permission_names_it_and_continues(
    keyed: Command, stripe_api: Mock, path: str, permission: str
) -> None:
    stripe_api.replace("GET", f"{BASE}/v1/{path}", status=403, json={"error": {"message": f"{KEY} may not"}})
    [failed] = lines(keyed, "fail")
    assert permission in failed
    assert "endpoint: we_1" in lines(keyed, "ok")


def test_doctor_without_disputes_permission_skips_that_check(keyed: Command, stripe_api: Mock) -> None:
    """Only thin events and reconcile need it."""
    stripe_api.replace("GET", f"{BASE}/v1/disputes", status=403, json={"error": {"message": "no"}})
    assert lines(keyed, "fail") == []
    assert len(lines(keyed, "skipped")) == 1


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ({"status": 401, "json": {"error": {"message": f"Invalid key {KEY}"}}}, "Stripe does not accept this key"),
        ({"status": 429, "json": {"error": {"message": "later"}}}, "try again in a minute"),
        ({"status": 500, "json": {"error": {"message": "oh"}}}, "status 500"),
        ({"body": requests.ReadTimeout(KEY)}, "no answer"),
    ],
)
def test_doctor_with_a_failing_stripe_reports_the_cause_once(
    keyed: Command, stripe_api: Mock, failure: dict[str, Any], cause: str
) -> None:
    stripe_api.replace("GET", f"{BASE}/v1/checkout/sessions", **failure)
    [failed] = lines(keyed, "fail")
    assert cause in failed
    assert failed.count("Stripe: ") == 1
    assert lines(keyed, "skipped") == ["the other checks at Stripe"]


def test_doctor_without_endpoint_permission_skips_the_endpoint(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, status=403, json={"error": {"message": "no"}})
    assert lines(keyed, "fail") == []
    assert lines(keyed, "skipped") == ["endpoint: the key lacks a permission: add Webhook Endpoints: Read"]


def test_doctor_with_a_failing_endpoint_list_reports_it(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, status=500, json={"error": {"message": "oh"}})
    assert len(lines(keyed, "fail")) == 1


def test_doctor_of_a_wrong_endpoint_reports_each_difference(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page(endpoint(status="disabled", enabled_events=["*"])))
    assert len(lines(keyed, "fail")) == 2


def test_doctor_without_an_endpoint_suggests_endpoint_create(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page())
    [failed] = lines(keyed, "fail")
    assert failed.endswith("run webhook endpoint create --url URL")


def test_doctor_with_several_endpoints_names_them(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page(endpoint("we_1"), endpoint("we_2")))
    [skipped] = lines(keyed, "skipped")
    assert skipped.startswith("endpoint: which of these? we_1 (")
    assert "we_2 (" in skipped
