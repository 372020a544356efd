"""Spending as the video generator does it: its calls, and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from support.roles import ALICE

# SQLSTATE and message of each rejection.
INSUFFICIENT_CREDITS = ("CR001", "insufficient_credits")
GENERATION_MISMATCH = ("CR002", "generation_mismatch")
GENERATION_REFUNDED = ("CR003", "generation_refunded")
UNKNOWN_GENERATION = ("CR004", "unknown_generation")
INVALID_COST = ("CR005", "invalid_cost")
UNKNOWN_USER = ("CR006", "unknown_user")
GENERATION_RELEASED = ("CR003", "generation_released")
COST_ABOVE_HOLD = ("CR007", "cost_above_hold")
GENERATION_CAPTURED = ("CR008", "generation_captured")
INVALID_EXPIRY = ("CR009", "invalid_expiry")


def new_generation() -> str:
    return str(uuid4())


def authorize(connection: psycopg.Connection, user: str | None, cost: int | None, generation: str | None) -> int:
    """Debit a generation and return the new balance in credits."""
    call = "select public.authorize_generation(%s, %s, %s)"
    return connection.execute(call, [user, cost, generation]).fetchone()[0]


def refund_generation(connection: psycopg.Connection, generation: str | None) -> int:
    """Refund a generation and return the new balance in credits."""
    return connection.execute("select public.refund_generation(%s)", [generation]).fetchone()[0]


def reserve(
    connection: psycopg.Connection,
    user: str | None,
    cost: int | None,
    generation: str | None,
    expires_in: str | None = "1 hour",
) -> int:
    """Reserve credits for a generation and return the available credits."""
    call = "select public.reserve_generation(%s, %s, %s, %s::interval)"
    return connection.execute(call, [user, cost, generation, expires_in]).fetchone()[0]


def capture(connection: psycopg.Connection, generation: str | None, cost: int | None = None) -> int:
    """Debit a hold, by default all of it, and return the new balance in credits."""
    return connection.execute("select public.capture_generation(%s, %s)", [generation, cost]).fetchone()[0]


def release(connection: psycopg.Connection, generation: str | None) -> int:
    """End a hold without a debit and return the available credits."""
    return connection.execute("select public.release_generation(%s)", [generation]).fetchone()[0]


def expire(connection: psycopg.Connection, generation: str) -> None:
    """Make a hold expire now, by the database's clock."""
    expiring = "update public.generation_holds set expires_at = clock_timestamp() where id = %s"
    assert connection.execute(expiring, [generation]).rowcount == 1


def available(connection: psycopg.Connection, user: str) -> int | None:
    """Return the user's available credits, or None if the user does not exist."""
    return connection.execute("select billing.available_credits(%s)", [user]).fetchone()[0]


@contextmanager
def refused(refusal: tuple[str, str]) -> Iterator[None]:
    """The one call inside fails with this SQLSTATE and message, a detail and a hint."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    diagnosis = caught.value.diag
    assert (caught.value.sqlstate, diagnosis.message_primary) == refusal
    assert diagnosis.message_detail
    assert diagnosis.message_hint


def holds(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return id, user, amount and state of each hold, ordered by id."""
    return connection.execute(
        """
        select
            id::text,
            user_id::text,
            amount,
            case
                when captured_at is not null then 'captured'
                when released_at is not null then 'released'
                when expires_at > clock_timestamp() then 'open'
                else 'expired'
            end
        from public.generation_holds
        order by id
        """
    ).fetchall()


def debits(connection: psycopg.Connection) -> list[tuple[str, str, int]]:
    """Return id, user and amount of each GENERATION row."""
    query = "select id::text, user_id::text, amount from public.transactions where type = 'GENERATION' order by id"
    return connection.execute(query).fetchall()


def hold(connection: psycopg.Connection, generation: str, state: str) -> None:
    """Reserve 30 of Alice's credits and bring the hold into this state: open, expired, captured or released."""
    reserve(connection, ALICE, 30, generation)
    if state != "open":
        {"expired": expire, "captured": capture, "released": release}[state](connection, generation)
