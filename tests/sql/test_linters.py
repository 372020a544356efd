"""Supabase's linter accepts the schema, and squawk accepts the migrations."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from support.databases import Database
from support.roles import ALICE, record, refund, sale, sign_up
from tools.supabase_cli import PROJECT, needs_tools, remote, run
from webhook.dev.postgres import ADMIN
from webhook.ledger.queries import query
from webhook.ledger.schema import sql_folder

pytestmark = needs_tools

RELEASED = sorted(sql_folder().glob("20261127*.sql"))
LATER = sorted({*sql_folder().glob("*.sql"), *(PROJECT / "tests" / "sql" / "later").glob("*.sql")} - {*RELEASED})

VIOLATIONS = {
    "rls_disabled_in_public": "create table public.leak (id bigint primary key); grant select on public.leak to anon",
    "function_search_path_mutable": "create function public.leak() returns void language sql as ''",
    "policy_exists_rls_disabled": "alter table public.users disable row level security",
    "rls_enabled_no_policy": "drop policy sales_service_role on billing.sales",
    "unused_index": "create index mine on billing.sales (currency)",
    "unindexed_foreign_keys": "drop index public.transactions_user_id_created_at_idx",
    "auth_rls_initplan": """
        alter policy users_select_own on public.users using (auth.uid() = id)
    """,
}
BLOCKING_STATEMENTS = {
    "constraint-missing-not-valid": "alter table public.users add constraint short check (length(email) < 9);",
    "adding-not-nullable-field": "alter table public.users alter column email set not null;",
    "require-concurrent-index-creation": "create index on public.users (email);",
    "changing-column-type": "alter table public.users alter column email type varchar;",
}


@pytest.fixture
def exposed(database: Database) -> Database:
    """A database whose API exposes the schema public: the linter checks only exposed schemas."""
    with psycopg.connect(database.superuser_url) as superuser:
        superuser.execute(f"alter role {ADMIN} in database {database.name} set pgrst.db_schemas = 'public'")
    return database


@pytest.fixture
def used(exposed: Database) -> Database:
    """The same database after a read of each index: the linter reports unused indexes."""
    with psycopg.connect(exposed.admin_url, autocommit=True) as owner:
        sign_up(owner, ALICE)
        record(owner, sale("pi_1", ALICE), refund("re_1", "pi_1", 100))
        owner.execute("set enable_seqscan = off")
        owner.execute("select from public.transactions where user_id = %s order by created_at", [ALICE])
        owner.execute("select from public.generation_holds where user_id = %s order by created_at", [ALICE])
        owner.execute("select billing.available_credits(%s)", [ALICE])
        owner.execute("select from billing.payment_links where payment_id = 'pi_1'")
        owner.execute("select billing.open_objects(now() - interval '1 day')")
        owner.execute("select billing.drop_discarded_payloads()")
        owner.execute(query("explain_find_email"), {"email": "a@example.com"})
        owner.execute("select from billing.assignments where payment_id = 'pi_1'")
        for column in ("subscription_id", "customer_id"):
            owner.execute(f"select from billing.sales where {column} = 'cus_1'")
        owner.execute("select from billing.claims where customer_id = 'cus_1'")
        owner.execute("select from billing.sales where user_id = %s and not paid", [ALICE])
        owner.execute("select from billing.operator_actions where subject = 'pi_1'")
        owner.execute("set enable_sort = off")
        owner.execute("select from billing.parked_events where resolved_at is null order by reason, parked_at")
        with owner.transaction(force_rollback=True):  # On a short table, the planner prefers the other index.
            owner.execute("drop index public.transactions_user_id_created_at_idx")
            owner.execute("select from public.transactions where created_at > now()")
        owner.execute("set enable_indexscan = off")  # Each of these conditions has one index alone.
        for condition in (
            "payment_id = 'pi_1' and resolved_at is not null",
            "payload is not null and billing.ids_named_in(payload) @> array['pi_1']",
            "lower(user_reference) = 'bob'",
        ):
            owner.execute(f"select from billing.parked_events where {condition}")
    return exposed


def lint(database: Database) -> tuple[int, str]:
    """Return the linter's exit code and its findings of every level."""
    options = ("--level", "info", "--fail-on", "info")
    done = run("supabase", "db", "advisors", remote(database.admin_url), *options)
    return done.returncode, done.stdout


def test_supabase_linter_finds_nothing(used: Database) -> None:
    """The schema passes at every level, as on a hosted project."""
    assert lint(used) == (0, "")


@pytest.mark.parametrize("finding", VIOLATIONS)
def test_supabase_linter_reports_a_violation(exposed: Database, finding: str) -> None:
    """Each of these statements fails the linter."""
    with psycopg.connect(exposed.admin_url) as owner:
        owner.execute(VIOLATIONS[finding])
    code, found = lint(exposed)
    assert code == 1
    assert finding in found


def squawk(*files: Path) -> set[str]:
    """Return the rules that the files break."""
    done = run("squawk", "--reporter", "json", *map(str, files), folder=PROJECT)
    return {broken["rule_name"] for broken in json.loads(done.stdout)}


def test_released_migrations_break_only_require_lock_timeout() -> None:
    """They are applied before anything is live, so their locks need no timeout."""
    assert squawk(*RELEASED) <= {"require-lock-timeout"}


def test_later_migrations_break_no_rule() -> None:
    """No later migration holds a lock for which deliveries would have to wait."""
    assert squawk(*LATER) == set()


@pytest.mark.parametrize("rule", BLOCKING_STATEMENTS)
def test_migration_that_blocks_a_live_table_is_reported(rule: str, tmp_path: Path) -> None:
    file = tmp_path / "20270101000000_later.sql"
    file.write_text(f"set local lock_timeout = '3s';\n{BLOCKING_STATEMENTS[rule]}\n", encoding="utf-8")
    assert squawk(file) == {rule}


def test_migration_without_lock_timeout_is_reported(tmp_path: Path) -> None:
    """Deliveries queue behind a migration that waits for a lock, so each migration bounds its wait."""
    file = tmp_path / "20270101000000_later.sql"
    file.write_text("alter table public.users add column name text;\n", encoding="utf-8")
    assert squawk(file) == {"require-lock-timeout"}
