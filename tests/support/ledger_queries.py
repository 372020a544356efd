"""Statements of the tests of worker processes: users, locks, the ledger and sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg


def new_user(connection: psycopg.Connection) -> str:
    user_id = str(uuid4())
    connection.execute("insert into auth.users (id, email) values (%s, %s)", [user_id, f"{user_id}@example.com"])
    return user_id


def amounts(connection: psycopg.Connection, user_id: str) -> list[int]:
    """The user's ledger in credits; AssertionError if the balance is not its sum."""
    query = """
        select coalesce(array_agg(amount order by amount) filter (where amount is not null), '{}'), credits_balance
        from public.users
        left join public.transactions on user_id = users.id
        where users.id = %s
        group by users.id
    """
    [(entries, balance)] = connection.execute(query, [user_id]).fetchall()
    assert balance == sum(entries)
    return entries


def wrong_balances(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return the ids of the users whose balance is not the sum of their ledger rows."""
    query = """
        select id
        from public.users
        where credits_balance <> (select coalesce(sum(amount), 0) from public.transactions where user_id = users.id)
    """
    return connection.execute(query).fetchall()


def sessions(connection: psycopg.Connection, condition: str) -> int:
    """The number of other sessions of this database that meet the ``condition`` on pg_stat_activity."""
    query = f"""
        select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and ({condition})
    """
    connection.execute("select pg_stat_clear_snapshot()")  # otherwise a transaction keeps its first snapshot
    return connection.execute(query).rowcount


WAITS = "wait_event_type = 'Lock'"


@contextmanager
def held(url: str, lock: str) -> Iterator[psycopg.Connection]:
    """Another session holds the ``lock`` statement's locks until the block ends or the connection rolls back."""
    with psycopg.connect(url) as connection:
        connection.execute(lock)
        yield connection
        connection.rollback()


def failing_with(words: str) -> str:
    """Statements after which the ledger's table rejects every row with these words, as a constraint quotes the row."""
    return f"""
        create function public.fail() returns trigger language plpgsql
        as $$ begin raise exception '{words}' using detail = '{words}'; end $$;
        create trigger fail before insert on public.transactions for each row execute function public.fail();
    """


def lock_of(user_id: str) -> str:
    return f"select from public.users where id = '{user_id}' for update"
