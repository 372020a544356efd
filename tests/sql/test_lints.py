"""Lints of the schema that need no tool: rules of Supabase's linter (splinter) and of this project."""

from __future__ import annotations

import re

import psycopg
import pytest

from support.roles import execute
from webhook.ledger.schema import sql_folder, triggers

FIRST = min(sql_folder().glob("*.sql"))

# The query of each rule returns the objects that break it. The statement after it creates one.
LINTS = {
    "row-level security without a policy": (
        """
        select oid::regclass::text
        from pg_class
        where
            relnamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and relrowsecurity
            and not exists (select from pg_policy where polrelid = pg_class.oid)
        """,
        "drop policy sales_service_role on billing.sales",
    ),
    "foreign key without an index": (
        """
        select conname::text
        from pg_constraint
        where
            contype = 'f'
            and connamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and not exists (
                select from pg_index
                where indrelid = conrelid and (indkey::smallint[])[0:cardinality(conkey) - 1] = conkey
            )
        """,
        "drop index public.transactions_user_id_created_at_idx",
    ),
    "duplicate indexes": (
        """
        select string_agg(indexname, ', ')
        from pg_indexes
        where schemaname in ('public', 'billing')
        group by tablename, replace(indexdef, indexname, '')
        having count(*) > 1
        """,
        "create index mine on billing.reversals (payment_id)",
    ),
    "index that is a prefix of another": (
        """
        select shorter.indexrelid::regclass::text
        from pg_index as shorter
        join pg_index as longer using (indrelid)
        join pg_class on pg_class.oid = indrelid
        where
            relnamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and not shorter.indisunique
            and shorter.indexrelid <> longer.indexrelid
            and shorter.indpred is null
            and longer.indpred is null
            and starts_with(longer.indkey::text || ' ', shorter.indkey::text || ' ')
        """,
        "create index mine on public.transactions (user_id)",
    ),
    "function with a mutable search path": (
        """
        select oid::regprocedure::text
        from pg_proc
        where
            pronamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and not exists (select from unnest(proconfig) as setting where setting like 'search_path=%')
        """,
        "alter function billing.record(jsonb) reset search_path",
    ),
    "security definer that a client may execute": (
        """
        select oid::regprocedure::text
        from pg_proc
        where
            pronamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and prosecdef
            and exists (
                select from unnest(array['anon', 'authenticated']) as client
                where has_function_privilege(client, oid, 'execute')
            )
        """,
        "grant execute on function billing.copy_account() to authenticated",
    ),
    # Before Postgres 18, each call of an SQL function plans its statements again.
    "SQL function below record() or a function for generations": (
        """
        with recursive called as (
            select oid, prosrc, prolang
            from pg_proc
            where oid = 'billing.record(jsonb)'::regprocedure or pronamespace = 'public'::regnamespace
            union
            select callee.oid, callee.prosrc, callee.prolang
            from called
            join pg_proc as callee on called.prosrc ~ ('\\mbilling\\.' || callee.proname || '\\(')
            where callee.pronamespace = 'billing'::regnamespace
        )
        select called.oid::regprocedure::text
        from called
        join pg_language on pg_language.oid = prolang
        where lanname = 'sql'
        """,
        """
        create or replace function billing.resolve(p_event_id text) returns void
            language sql
            return null::void
        """,
    ),
    "table without a comment": (
        """
        select oid::regclass::text
        from pg_class
        where
            relnamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and relkind in ('r', 'p', 'v', 'm')
            and relname <> 'schema_migrations' -- dbmate's table
            and obj_description(oid, 'pg_class') is null
        """,
        "comment on table billing.sales is null",
    ),
    "function without a comment": (
        """
        select oid::regprocedure::text
        from pg_proc
        where
            pronamespace in ('public'::regnamespace, 'billing'::regnamespace)
            and obj_description(oid, 'pg_proc') is null
        """,
        "comment on function billing.record(jsonb) is null",
    ),
}


@pytest.mark.parametrize("rule", LINTS)
def test_schema_breaks_no_rule(admin: psycopg.Connection, rule: str) -> None:
    lint, _ = LINTS[rule]
    assert execute(admin, lint) == []


@pytest.mark.parametrize("rule", LINTS)
def test_object_that_breaks_a_rule_is_reported(admin: psycopg.Connection, rule: str) -> None:
    lint, violation = LINTS[rule]
    admin.execute(violation)
    assert len(execute(admin, lint)) == 1


def test_names_in_public_are_checked_before_migrating(admin: psycopg.Connection) -> None:
    """Another application may use them already. The list is in the first migration."""
    checked = set(re.findall(r"\('(relation|type|function)', '(\w+)'\)", FIRST.read_text("utf-8")))
    rows = execute(
        admin,
        """
        select 'relation', relname::text from pg_class where relnamespace = 'public'::regnamespace
        union
        select 'type', typname::text from pg_type
            where typnamespace = 'public'::regnamespace and typtype <> 'c' and typcategory <> 'A'
        union
        select 'function', proname::text from pg_proc where pronamespace = 'public'::regnamespace
        """,
    )
    assert set(rows) - checked == set()


def test_doctor_checks_every_trigger(admin: psycopg.Connection) -> None:
    """It reads their names and statements from the migrations."""
    rows = execute(
        admin,
        """
        select tgname::text, relnamespace::regnamespace || '.' || relname
        from pg_trigger
        join pg_class on pg_class.oid = tgrelid
        where not tgisinternal
        """,
    )
    assert sorted((each.name, each.table_name) for each in triggers()) == sorted(rows)
