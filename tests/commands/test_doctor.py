"""`webhook doctor`: what it finds wrong, and that it looks on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import requests
import responses

from support.databases import Database, login
from support.endpoints import BASE, ENDPOINTS, Command, endpoint, page
from webhook.events.event import read_event
from webhook.ledger.ledger import Ledger
from webhook.ledger.schema import expected_version

KEY = "rk_test_doctors_key"
LISTS = ("checkout/sessions", "prices", "products", "invoices", "refunds", "payment_intents", "disputes", "events")
Mock = responses.RequestsMock
Admin = psycopg.Connection[Any]


@pytest.fixture
def doctor(database: Database, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, with all that it needs but a key."""
    for name in ("STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_ACCOUNT", "MIGRATION_DATABASE_URL", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_hidden")
    monkeypatch.setenv("STRIPE_LIVEMODE", "false")
    return Command(monkeypatch)


@pytest.fixture
def keyed(doctor: Command, monkeypatch: pytest.MonkeyPatch, stripe_api: Mock) -> Command:
    """The command with a key that may read everything, and an endpoint as wanted."""
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    stripe_api.assert_all_requests_are_fired = False
    for each in LISTS:
        stripe_api.get(f"{BASE}/v1/{each}", json=page())
    stripe_api.get(ENDPOINTS, json=page(endpoint()))
    return doctor


def lines(doctor: Command, verdict: str) -> list[str]:
    """What it says of this verdict; its exit code is right, and its output holds no secret."""
    done = doctor("doctor")
    found = [tuple(line.split(maxsplit=1)) for line in done.out.splitlines()]
    assert done.code == (1 if "wrong" in {name for name, _ in found} else 0)
    assert not any(secret in done.out + done.err for secret in ("whsec_hidden", "only-for-tests", KEY))
    return [text for name, text in found if name == verdict]


def test_doctor_of_a_healthy_worker_finds_nothing_wrong(keyed: Command) -> None:
    assert lines(keyed, "wrong") == lines(keyed, "skipped") == []
    assert f"schema: {expected_version()}" in lines(keyed, "ok")


def test_doctor_without_a_key_skips_stripe(doctor: Command) -> None:
    assert lines(doctor, "wrong") == []
    skipped = ("the key's mode", "the key's rights", "the endpoint's events")
    assert lines(doctor, "skipped") == [f"{each}: no STRIPE_API_KEY" for each in skipped]


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
def test_doctor_of_a_bad_variable_names_it_and_looks_on(
    doctor: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    [wrong] = lines(doctor, "wrong")
    assert wrong.startswith(f"{name} ")
    assert "hunter2" not in wrong
    assert any(line.startswith(("parked", "database")) for line in (*lines(doctor, "ok"), *lines(doctor, "skipped")))


# The database


def test_doctor_with_the_database_away_says_so_and_looks_on(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://worker:only-for-tests@127.0.0.1:1/none")
    [wrong] = lines(keyed, "wrong")
    assert wrong.startswith("database: not reachable as service_role: no connection")
    assert "the endpoint's events: we_1" in lines(keyed, "ok")


def test_doctor_with_a_login_that_may_not_become_service_role_says_so(
    doctor: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute("drop role if exists stranger")
        superuser.execute("create role stranger login password 'only-for-tests'")
        monkeypatch.setenv("DATABASE_URL", login(database.url, "stranger"))
        [wrong] = lines(doctor, "wrong")
        superuser.execute("drop role stranger")
    assert "SQLSTATE 42501" in wrong
    assert "grant service_role" in wrong


def test_doctor_of_an_empty_database_says_migrate(
    doctor: Command, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.url)
    wrong = lines(doctor, "wrong")
    assert "database: SQLSTATE 3F000 InvalidSchemaName: run webhook migrate" in wrong
    assert "rights: service_role lacks execute on billing.record(): grant it" in wrong


def test_doctor_of_an_older_schema_says_migrate(doctor: Command, admin: Admin) -> None:
    admin.execute("create or replace function billing.schema_version() returns text language sql return '2020'")
    assert lines(doctor, "wrong") == [f"schema: 2020, expected {expected_version()}: run webhook migrate"]


@pytest.mark.parametrize("table", ["public.users", "public.transactions", "billing.sales", "billing.parked_events"])
def test_doctor_of_a_table_without_row_level_security_names_it(doctor: Command, admin: Admin, table: str) -> None:
    admin.execute(f"alter table {table} disable row level security")
    assert lines(doctor, "wrong") == [f"row-level security: alter table {table} enable row level security"]


@pytest.mark.parametrize(
    ("statement", "right"),
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
    ],
)
def test_doctor_of_a_right_that_is_missing_names_it(doctor: Command, admin: Admin, statement: str, right: str) -> None:
    admin.execute(statement)
    assert lines(doctor, "wrong") == [f"rights: service_role lacks {right}: grant it"]


@pytest.mark.parametrize(
    ("role", "statement", "right"),
    [
        ("service_role", "update on public.transactions", "update on public.transactions"),
        ("service_role", "update (amount) on public.transactions", "update on public.transactions"),
        ("service_role", "delete on public.transactions", "delete on public.transactions"),
        ("service_role", "update on public.users", "update on public.users.credits_balance"),
        ("service_role", "execute on function billing.erase_user(uuid)", "execute on billing.erase_user()"),
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
def test_doctor_of_a_right_too_much_names_it(
    doctor: Command, admin: Admin, role: str, statement: str, right: str
) -> None:
    admin.execute(f"grant {statement} to {role}")
    assert lines(doctor, "wrong") == [f"rights: {role} has {right}: revoke it"]


def test_doctor_with_parked_events_counts_them(doctor: Command, database: Database) -> None:
    ledger = Ledger(database.url)
    ledger.park(read_event('{"id": "evt_1", "type": "t", "data": {"object": {}}}'), "unreadable", None, "{}")
    ledger.close()
    assert lines(doctor, "wrong") == ["parked events: 1, see webhook parked"]


# Stripe


def test_doctor_with_a_key_of_the_other_mode_says_so(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_LIVEMODE", "true")
    assert lines(keyed, "wrong") == ["the key's mode: STRIPE_API_KEY is for test mode, STRIPE_LIVEMODE says live"]


def test_doctor_with_a_key_that_names_no_mode_says_so(keyed: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_doctors")
    assert lines(keyed, "skipped") == ["the key's mode: its name does not tell it"]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("checkout/sessions", "Checkout Sessions: Read"),
        ("prices", "Prices: Read"),
        ("products", "Products: Read"),
        ("invoices", "Invoices: Read"),
        ("refunds", "Charges and Refunds: Read"),
    ],
)
def test_doctor_with_a_key_that_lacks_a_right_names_it_and_looks_on(
    keyed: Command, stripe_api: Mock, path: str, right: str
) -> None:
    stripe_api.replace("GET", f"{BASE}/v1/{path}", status=403, json={"error": {"message": f"{KEY} may not"}})
    [wrong] = lines(keyed, "wrong")
    assert right in wrong
    assert "the endpoint's events: we_1" in lines(keyed, "ok")


def test_doctor_with_a_key_that_lacks_what_thin_events_and_reconcile_need_skips_that(
    keyed: Command, stripe_api: Mock
) -> None:
    stripe_api.replace("GET", f"{BASE}/v1/disputes", status=403, json={"error": {"message": "no"}})
    assert lines(keyed, "wrong") == []
    assert len(lines(keyed, "skipped")) == 1


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"status": 401, "json": {"error": {"message": f"Invalid key {KEY}"}}}, "Stripe does not accept this key"),
        ({"status": 429, "json": {"error": {"message": "later"}}}, "try again in a minute"),
        ({"status": 500, "json": {"error": {"message": "oh"}}}, "status 500"),
        ({"body": requests.ReadTimeout(KEY)}, "no answer"),
    ],
)
def test_doctor_that_stripe_does_not_answer_says_why_once(
    keyed: Command, stripe_api: Mock, trouble: dict[str, Any], told: str
) -> None:
    stripe_api.replace("GET", f"{BASE}/v1/checkout/sessions", **trouble)
    [wrong] = lines(keyed, "wrong")
    assert told in wrong
    assert wrong.count("Stripe: ") == 1
    assert lines(keyed, "skipped") == ["what else Stripe could tell"]


def test_doctor_with_a_key_that_may_not_see_endpoints_says_so(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, status=403, json={"error": {"message": "no"}})
    assert lines(keyed, "wrong") == []
    assert lines(keyed, "skipped") == ["the endpoint's events: the key may not look: add Webhook Endpoints: Read"]


def test_doctor_that_stripe_stops_answering_says_why(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, status=500, json={"error": {"message": "oh"}})
    assert len(lines(keyed, "wrong")) == 1


def test_doctor_of_an_endpoint_that_differs_tells_each_difference(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page(endpoint(status="disabled", enabled_events=["*"])))
    assert len(lines(keyed, "wrong")) == 2


def test_doctor_without_an_endpoint_says_how_to_make_one(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page())
    [wrong] = lines(keyed, "wrong")
    assert wrong.endswith("webhook endpoint create")


def test_doctor_with_several_endpoints_names_them(keyed: Command, stripe_api: Mock) -> None:
    stripe_api.replace("GET", ENDPOINTS, json=page(endpoint("we_1"), endpoint("we_2")))
    [skipped] = lines(keyed, "skipped")
    assert "we_1, we_2" in skipped
