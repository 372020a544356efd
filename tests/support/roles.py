"""Users and roles of the database, and the statements that tests run as them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from support.databases import OPERATOR, WORKER, Database
from webhook.dev.postgres import ADMIN

ALICE = "aaaaaaaa-0000-4000-8000-00000000000a"
BOB = "bbbbbbbb-0000-4000-8000-00000000000b"
# Carol has no account until a test signs her up.
CAROL = "cccccccc-0000-4000-8000-00000000000c"

# The login that switches to each role. A login of the role's own name cannot switch to another.
_LOGINS = {
    "anon": "authenticator",
    "authenticated": "authenticator",
    "service_role": WORKER,
    "worker": WORKER,
    "operator": OPERATOR,
    "billing_operator": OPERATOR,
    "owner": ADMIN,
}


@contextmanager
def connected(
    database: Database, role: str, *, user: str | None = None, login: str | None = None
) -> Iterator[psycopg.Connection]:
    """Yield an autocommit connection as `role`. Its claims name `user`, as PostgREST sets them."""
    login = login or _LOGINS.get(role, role)
    role = {"worker": WORKER, "operator": OPERATOR, "owner": ADMIN}.get(role, role)
    claims = json.dumps({"role": role, "sub": user}) if user else ""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        connection.execute("set statement_timeout = '2s'")
        connection.execute("select set_config('request.jwt.claims', %s, false)", [claims])
        yield connection


def execute(connection: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement. The lines after `copy … from stdin` are the data to copy."""
    with connection.cursor() as cursor:
        if not statement.startswith("copy "):
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
        statement, _, lines = statement.partition("\n")
        with cursor.copy(statement) as copy:
            if lines:
                copy.write(lines)
                return []
            return list(copy.rows())


def contents(admin: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table."""
    tables = admin.execute(
        """
        select nspname, relname
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where nspname in ('public', 'billing', 'auth') and relkind = 'r'
        """
    ).fetchall()
    rows = sql.SQL("select to_jsonb(line) from {} as line order by 1")
    return {".".join(table): admin.execute(rows.format(sql.Identifier(*table))).fetchall() for table in tables}


def sign_up(admin: psycopg.Connection, *users: str) -> None:
    """Create accounts. The email address of each starts with the first letter of the user id."""
    for user in users:
        admin.execute("insert into auth.users (id, email) values (%s, %s)", [user, f"{user[0]}@example.com"])


def add(connection: psycopg.Connection, user: str, amount: int, **columns: str) -> str:
    """Add a ledger row, by default a PURCHASE, and return its id."""
    row = {"user_id": user, "amount": amount, "type": "PURCHASE"} | columns
    statement = sql.SQL("insert into public.transactions ({}) values ({}) returning id").format(
        sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.Placeholder() * len(row))
    )
    return str(connection.execute(statement, list(row.values())).fetchone()[0])


def balance(connection: psycopg.Connection, user: str) -> int:
    return connection.execute("select credits_balance from public.users where id = %s", [user]).fetchone()[0]


def sale(payment_id: str, user: str | None, **fields: Any) -> dict[str, Any]:
    """The fact of a sale of 100 credits for 10.00, from its Checkout Session."""
    return {
        "kind": "sale",
        "payment_id": payment_id,
        "version": 1,
        "user_id": user,
        "credits": 100,
        "money_amount": 1000,
        "currency": "usd",
        "paid": True,
    } | fields


def refund(refund_id: str, payment_id: str, money_amount: int) -> dict[str, Any]:
    """Return the fact of a refund, in minor units of the sale's currency."""
    return {
        "kind": "reversal",
        "id": refund_id,
        "version": 1,
        "payment_id": payment_id,
        "money_amount": money_amount,
        "currency": "usd",
    }


def record(connection: psycopg.Connection, *facts: dict[str, Any], event_id: str = "evt_1") -> dict[str, str]:
    """The result of billing.record() for one delivery."""
    deliveries = json.dumps([{"event_id": event_id, "facts": facts}])
    [(results,)] = connection.execute("select billing.record(%s)", [deliveries]).fetchall()
    return results[0]


def assert_refused(database: Database, role: str, statement: str, *states: str) -> None:
    """Check that the statement fails with one of the SQLSTATEs and changes nothing."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        before = contents(admin)
        with connected(database, role, user=ALICE) as attacker, pytest.raises(psycopg.Error) as caught:
            execute(attacker, statement)
        assert caught.value.sqlstate in (states or ("42501",))
        assert contents(admin) == before


def open_accounts(admin: psycopg.Connection) -> None:
    """Create the accounts of Alice, who has bought 100 credits, and Bob, who has bought 50."""
    sign_up(admin, ALICE, BOB)
    add(admin, ALICE, 100, stripe_id="pi_a")
    add(admin, BOB, 50, stripe_id="pi_b")
