"""Operators' calls of ``billing``, and their errors."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

# SQLSTATE and message of each rejection.
DEBT = ("CR001", "insufficient_credits")
ADJUSTMENT_MISMATCH = ("CR002", "adjustment_mismatch")
MISSING_ID = ("CR004", "missing_id")
INVALID_AMOUNT = ("CR005", "invalid_amount")
UNKNOWN_USER = ("CR006", "unknown_user")
MISSING_TEXT = ("CR010", "missing_text")
TEXT_TOO_LONG = ("CR010", "text_too_long")
NOT_PARKED = ("CR011", "not_parked")
ASSIGNMENT_MISMATCH = ("CR002", "assignment_mismatch")
INVALID_ASSIGNMENT = ("CR005", "invalid_assignment")
INVALID_CREDITS = ("CR005", "invalid_credits")
UNKNOWN_PAYMENT = ("CR012", "unknown_payment")
ERASED_SALE = ("CR012", "erased_sale")
NOT_ASSIGNABLE = ("CR013", "not_assignable")
NOT_LATEST = ("CR014", "not_latest")
TOO_MANY_CREDITS = ("CR015", "too_many_credits")

REASON = "a bonus"


def new_id() -> str:
    return str(uuid4())


def adjust(connection: psycopg.Connection, user: str, amount: int | None, **values: Any) -> tuple[int, int, bool]:
    """Adjust a balance and return the action's number, the balance and whether it was new."""
    named = {"p_reason": REASON, "p_by": "ann", "p_id": new_id()} | {f"p_{name}": each for name, each in values.items()}
    call = sql.SQL("select number, balance, is_new from billing.adjust({}, {}, {})").format(
        user, amount, sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(n), v) for n, v in named.items())
    )
    return connection.execute(call).fetchone()


def assign(
    connection: psycopg.Connection, payment_id: str, user: str | None = None, credits_: int | None = None, **values: Any
) -> dict[str, Any]:
    """Assign user, credits or both to a sale, and return what the function returns."""
    named = {"p_reason": "wrong user", "p_by": "ann", "p_id": new_id()} | {f"p_{name}": v for name, v in values.items()}
    call = sql.SQL("select billing.assign({}, {}, {}, {})").format(
        payment_id,
        user,
        credits_,
        sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(n), v) for n, v in named.items()),
    )
    return connection.execute(call).fetchone()[0]


def withdraw(connection: psycopg.Connection, payment_id: str, number: int, **values: Any) -> dict[str, Any]:
    """Withdraw the assignment with this number."""
    return assign(connection, payment_id, withdraws=number, **values)


def discard(connection: psycopg.Connection, *event_ids: str, reason: str = "a test") -> dict[str, int | None]:
    """Discard parked events and return the number of each one's action."""
    return dict(connection.execute("select * from billing.discard(%s, 'ann', %s)", [[*event_ids], reason]).fetchall())


def actions(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return all actions, oldest first: action, subject, reason, credits given and credits taken."""
    return connection.execute(
        "select action, subject, reason, credits_given, credits_taken from billing.operator_actions order by number"
    ).fetchall()
