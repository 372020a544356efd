"""Supabase Realtime: the migration publishes users and generation_holds if the publication exists."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.generations import capture, new_generation, reserve
from support.roles import ALICE, add, execute, sign_up
from webhook.dev.postgres import ADMIN
from webhook.ledger.migrate import migrate
from webhook.ledger.schema import sql_folder

REALTIME = sql_folder() / "20261127000017_realtime.sql"
PUBLISHED = """
    select schemaname || '.' || tablename
    from pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname in ('public', 'billing')
    order by 1
"""


def published(database: Database, publication: str) -> list[str]:
    """Migrate a database that has this publication, and return its published tables."""
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


def test_users_and_holds_are_published_to_realtime(realtime: Database) -> None:
    """A page receives changes of its user's balance and holds, and of no other table."""
    with psycopg.connect(realtime.admin_url) as owner:
        assert execute(owner, PUBLISHED) == [("public.generation_holds",), ("public.users",)]


def test_published_balance_and_hold_can_be_updated(realtime: Database) -> None:
    """The primary key is a sufficient replica identity for published updates."""
    generation = new_generation()
    with psycopg.connect(realtime.admin_url) as owner:
        sign_up(owner, ALICE)
        add(owner, ALICE, 100)
        reserve(owner, ALICE, 60, generation)
        capture(owner, generation)
        identities = execute(
            owner,
            """
            select relreplident::text
            from pg_class
            where oid in ('public.users'::regclass, 'public.generation_holds'::regclass)
            """,
        )
    assert identities == [("d",), ("d",)]


def test_already_published_tables_stay_published(empty_database: Database) -> None:
    publication = f"""
        create publication supabase_realtime for table public.messages;
        alter publication supabase_realtime owner to {ADMIN}
    """
    assert published(empty_database, publication) == ["public.generation_holds", "public.messages", "public.users"]


@pytest.mark.parametrize("tables", ["all tables", "tables in schema public"])
def test_publication_of_all_tables_is_left_unchanged(empty_database: Database, tables: str) -> None:
    """It includes users already, so the migration neither changes it nor fails."""
    assert "public.users" in published(empty_database, f"create publication supabase_realtime for {tables}")


def test_publication_of_another_owner_does_not_stop_migrate(empty_database: Database) -> None:
    """The migration leaves the publication unchanged and applies the rest."""
    assert published(empty_database, "create publication supabase_realtime for table public.messages") == [
        "public.messages"
    ]


def test_publication_of_another_owner_is_reported_with_a_hint(database: Database, admin: psycopg.Connection) -> None:
    """The hints are the statements that a superuser still has to run."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        execute(superuser, "create publication supabase_realtime")
    hints: list[str | None] = []
    admin.add_notice_handler(lambda notice: hints.append(notice.message_hint))
    admin.execute(REALTIME.read_text(encoding="utf-8"))
    assert hints == [
        f"As a superuser: alter publication supabase_realtime add table public.{table};"
        for table in ("users", "generation_holds")
    ]


def test_migrations_create_no_publication(database: Database) -> None:
    """Plain Postgres needs none."""
    with psycopg.connect(database.admin_url) as owner:
        assert execute(owner, "select from pg_publication") == []
