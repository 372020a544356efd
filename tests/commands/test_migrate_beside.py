"""`webhook migrate` in a database where another application has its tables, functions and triggers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from support.commands import WEBHOOK, Done
from support.databases import Database
from support.project import DOCS
from support.roles import ALICE
from webhook.ledger.migrate import migrate
from webhook.ledger.schema import sql_folder
from webhook.settings import child_environment

SHAPES = Path(__file__).parents[1] / "sql" / "beside"
PAGE = (DOCS / "how-to" / "supabase.md").read_text("utf-8")
FIRST = min(sql_folder().glob("*.sql"))

CLASHES = {
    "table public.users": "create table public.users (id int)",
    "table public.transactions": "create view public.transactions as select 1 as id",
    "index public.users_pkey": "create table public.people (id int constraint users_pkey primary key)",
    "type public.transaction_type": "create type public.transaction_type as enum ('debit', 'credit')",
    "function public.authorize_generation": "create function public.authorize_generation(int) returns int return 1",
    "function public.update_user_credits": "create function public.update_user_credits() returns int return 1",
    "schema billing": "create schema billing create table invoices (id int)",
    "function app.add inserts into public.users": """
        create schema app;
        create function app.add() returns trigger language plpgsql as
            $$begin INSERT INTO "public"."users" (id) values (new.id); return new; end$$;
        create trigger added after insert on auth.users for each row execute function app.add()
    """,
}


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def webhook_migrate(url: str, *options: str) -> Done:
    """Return the exit code and the output of the whole command."""
    variables = child_environment({"DATABASE_URL": url}, without=("MIGRATION_",))
    done = subprocess.run([WEBHOOK, "migrate", *options], env=variables, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def objects(url: str) -> list[tuple[object, ...]]:
    """Return the schemas, and the relations, functions and triggers outside the catalog."""
    return query(
        url,
        """
        select nspname::text, 'schema' from pg_namespace where nspname not like 'pg_%'
        union all select oid::regclass::text, 'relation' from pg_class
            where relnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
        union all select oid::regprocedure::text, 'function' from pg_proc
            where pronamespace <> 'pg_catalog'::regnamespace
        union all select tgname::text, 'trigger' from pg_trigger
        order by 2, 1
        """,
    )


BOTH = "select count(*) from public.users join public.profiles using (id)"


def test_migrate_beside_the_tutorial_keeps_both_triggers(empty_database: Database) -> None:
    """A new account gets its row in public.users and its profile."""
    execute(empty_database.admin_url, (SHAPES / "tutorial.sql").read_text("utf-8"))
    migrate(empty_database.admin_url)
    names = """'{"full_name": "Ann"}'"""
    execute(
        empty_database.admin_url,
        f"insert into auth.users (id, email, raw_user_meta_data) values ('{ALICE}', 'a@example.com', {names})",
    )
    rows = query(empty_database.admin_url, "select email, full_name from public.users join public.profiles using (id)")
    assert rows == [("a@example.com", "Ann")]


def test_tutorial_after_migrate_keeps_both_triggers(database: Database) -> None:
    execute(database.admin_url, (SHAPES / "tutorial.sql").read_text("utf-8"))
    execute(database.admin_url, "insert into auth.users (id) values (gen_random_uuid())")
    assert query(database.admin_url, BOTH) == [(1,)]


@pytest.mark.parametrize("name", CLASHES)
def test_migrate_with_a_taken_name_changes_nothing(empty_database: Database, name: str) -> None:
    execute(empty_database.admin_url, CLASHES[name])
    before = objects(empty_database.admin_url)
    done = webhook_migrate(empty_database.admin_url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert name in done.err
    assert "docs/how-to/supabase.md" in done.err
    assert objects(empty_database.admin_url) == before


@pytest.mark.parametrize("name", CLASHES)
def test_first_migration_with_a_taken_name_fails(empty_database: Database, name: str) -> None:
    """`supabase db push` runs the SQL alone."""
    execute(empty_database.admin_url, CLASHES[name])
    with pytest.raises(psycopg.errors.DuplicateObject, match=re.escape(name)):
        execute(empty_database.admin_url, FIRST.read_text("utf-8"))


def test_migrate_plain_with_a_taken_name_changes_nothing(bare: Database) -> None:
    execute(bare.superuser_url, CLASHES["table public.users"])
    before = objects(bare.superuser_url)
    assert webhook_migrate(bare.superuser_url, "--plain-postgres").code == 2
    assert objects(bare.superuser_url) == before


@pytest.mark.parametrize(
    "auth",
    [
        "create schema auth",
        "create schema auth create table users (id int, email text)",
        "create schema auth create table users (id uuid, email text)",
    ],
)
def test_migrate_plain_beside_another_auth_schema_fails(bare: Database, auth: str) -> None:
    execute(bare.superuser_url, auth)
    before = objects(bare.superuser_url)
    done = webhook_migrate(bare.superuser_url, "--plain-postgres")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "another application uses the schema auth" in done.err
    assert objects(bare.superuser_url) == before


def test_migrate_plain_keeps_the_owner_of_a_fitting_auth(bare: Database) -> None:
    execute(bare.superuser_url, "create schema auth create table users (id uuid primary key, email text)")
    execute(bare.superuser_url, "create function auth.uid() returns uuid return null::uuid")
    migrate(bare.superuser_url, plain_postgres=True)
    owner = "select relowner::regrole::text = current_user from pg_class where oid = 'auth.users'::regclass"
    assert query(bare.superuser_url, owner) == [(True,)]


def test_remedy_of_the_page_makes_room_for_public_users(empty_database: Database) -> None:
    """Both tables then get a row for each account, old and new."""
    execute(empty_database.admin_url, (SHAPES / "starter.sql").read_text("utf-8"))
    execute(empty_database.admin_url, "insert into auth.users (id) values (gen_random_uuid())")
    assert webhook_migrate(empty_database.admin_url).code == 2
    [remedy] = re.findall(r"```postgresql\n(.*?)```", PAGE, re.DOTALL)
    execute(empty_database.admin_url, remedy)
    assert webhook_migrate(empty_database.admin_url).code == 0
    execute(empty_database.admin_url, "insert into auth.users (id) values (gen_random_uuid())")
    assert query(empty_database.admin_url, BOTH) == [(2,)]


def test_remedy_that_forgets_the_function_is_refused(empty_database: Database) -> None:
    """Otherwise each sign-up would fail."""
    execute(empty_database.admin_url, (SHAPES / "starter.sql").read_text("utf-8"))
    execute(empty_database.admin_url, "alter table users rename to profiles; alter index users_pkey rename to mine")
    done = webhook_migrate(empty_database.admin_url)
    assert "function public.handle_new_user inserts into public.users" in done.err
