"""Rows that deliveries stored."""

from __future__ import annotations

from typing import Any

import psycopg

Admin = psycopg.Connection[Any]


def rows(admin: Admin, query: str) -> list[tuple[Any, ...]]:
    return admin.execute(query).fetchall()  # type: ignore[call-overload]


def balance(admin: Admin) -> int:
    """Return the credits of the only user, after a check that they are the sum of the ledger."""
    [(credits_balance, total)] = rows(
        admin,
        "select credits_balance, (select coalesce(sum(amount), 0) from public.transactions) from public.users",
    )
    assert credits_balance == total
    return int(credits_balance)


def stored(admin: Admin) -> int:
    """Return the number of rows in the tables that a delivery can write."""
    tables = (
        "public.transactions",
        "billing.sales",
        "billing.reversals",
        "billing.payment_links",
        "billing.parked_events",
    )
    return sum(rows(admin, f"select count(*) from {table}")[0][0] for table in tables)


def entered_on(admin: Admin) -> str:
    """Return the UTC day of the newest ledger row. Today's date may be the next one by now."""
    [(day,)] = rows(admin, "select (max(created_at) at time zone 'UTC')::date::text from public.transactions")
    return str(day)


def set_parked_age(admin: Admin, age: str, event_id: str = "%") -> None:
    """Make the events look parked for the interval ``age``. An age in hours is the same if the test takes seconds."""
    query = "update billing.parked_events set parked_at = now() - %s::interval where event_id like %s"
    admin.execute(query, [age, event_id])


def parked(admin: Admin) -> list[tuple[Any, ...]]:
    return rows(admin, "select event_id, reason from billing.parked_events where resolved_at is null order by 1")
