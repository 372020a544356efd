"""Spending as the video generator does it: its calls, and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest

# SQLSTATE and message of each rejection.
INSUFFICIENT_CREDITS = ("CR001", "insufficient_credits")
GENERATION_MISMATCH = ("CR002", "generation_mismatch")
GENERATION_REFUNDED = ("CR003", "generation_refunded")
UNKNOWN_GENERATION = ("CR004", "unknown_generation")
INVALID_COST = ("CR005", "invalid_cost")
UNKNOWN_USER = ("CR006", "unknown_user")


def new_generation() -> str:
    return str(uuid4())


def authorize(connection: psycopg.Connection, user: str | None, cost: int | None, generation: str | None) -> int:
    """Debit a generation and return the new balance in credits."""
    call = "select public.authorize_generation(%s, %s, %s)"
    return connection.execute(call, [user, cost, generation]).fetchone()[0]


def refund_generation(connection: psycopg.Connection, generation: str | None) -> int:
    """Refund a generation and return the new balance in credits."""
    return connection.execute("select public.refund_generation(%s)", [generation]).fetchone()[0]


@contextmanager
def refused(refusal: tuple[str, str]) -> Iterator[None]:
    """The one call inside fails with this SQLSTATE and message, a detail and a hint."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    diagnosis = caught.value.diag
    assert (caught.value.sqlstate, diagnosis.message_primary) == refusal
    assert diagnosis.message_detail
    assert diagnosis.message_hint
