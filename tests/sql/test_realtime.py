"""Supabase Realtime: users is published where there is a publication, and only there."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.roles import ALICE, add, execute, sign_up
from webhook.dev.postgres import ADMIN
from webhook.ledger.migrate import migrate
from webhook.ledger.schema import sql_folder

REALTIME = sql_folder() / "20261127000013_realtime.sql"
PUBLISHED = """
    select schemaname || '.' || tablename
    from pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname in ('public', 'billing')
    order by 1
"""


def published(database: Database, publication: str) -> list[str]:
    """Our tables that Realtime hears of, after the migrations of a database with this publication."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        execute(superuser, "create table public.messages (id bigint primary key)")
        execute(superuser, publication)
        migrate(database.admin_url)
        return [table for (table,) in execute(superuser, PUBLISHED)]


@pytest.fixture
def realtime(empty_database: Database) -> Database:
    """A database with an empty publication that belongs to the schema's owner, as on Supabase."""
    with psycopg.connect(empty_database.admin_url) as owner:
        owner.execute("create publication supabase_realtime")
    migrate(empty_database.admin_url)
    return empty_database


def test_users_alone_are_published_where_realtime_is(realtime: Database) -> None:
    """A page hears of its user's balance, and of nothing else of ours."""
    with psycopg.connect(realtime.admin_url) as owner:
        assert execute(owner, PUBLISHED) == [("public.users",)]


def test_balance_that_is_published_can_still_be_updated(realtime: Database) -> None:
    """The primary key is all the replica identity that a published update needs."""
    with psycopg.connect(realtime.admin_url) as owner:
        sign_up(owner, ALICE)
        add(owner, ALICE, 100)
        assert execute(owner, "select relreplident::text from pg_class where oid = 'public.users'::regclass") == [
            ("d",)
        ]


def test_published_tables_of_others_stay_published(empty_database: Database) -> None:
    """What the project publishes already goes on."""
    publication = f"""
        create publication supabase_realtime for table public.messages;
        alter publication supabase_realtime owner to {ADMIN}
    """
    assert published(empty_database, publication) == ["public.messages", "public.users"]


@pytest.mark.parametrize("tables", ["all tables", "tables in schema public"])
def test_users_that_are_published_with_all_others_are_left_so(empty_database: Database, tables: str) -> None:
    """Where every table is published anyway there is nothing to do, and nothing fails."""
    assert "public.users" in published(empty_database, f"create publication supabase_realtime for {tables}")


def test_publication_that_belongs_to_somebody_else_is_left_and_the_rest_applied(empty_database: Database) -> None:
    """Realtime can be set up later; a schema without spending cannot wait for it."""
    assert published(empty_database, "create publication supabase_realtime for table public.messages") == [
        "public.messages"
    ]


def test_publication_that_belongs_to_somebody_else_is_told_with_what_to_run(
    database: Database, admin: psycopg.Connection
) -> None:
    """Whoever applies the migration reads the one statement that is left to do."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        execute(superuser, "create publication supabase_realtime")
    hints: list[str | None] = []
    admin.add_notice_handler(lambda notice: hints.append(notice.message_hint))
    admin.execute(REALTIME.read_text(encoding="utf-8"))
    assert hints == ["As a superuser: alter publication supabase_realtime add table public.users;"]


def test_publication_where_there_is_none_is_not_made(database: Database) -> None:
    """Plain Postgres stays without one."""
    with psycopg.connect(database.admin_url) as owner:
        assert execute(owner, "select from pg_publication") == []
