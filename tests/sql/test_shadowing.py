"""Shadowed names in a caller's search path: every function still uses the real tables, types and operators."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.generations import (
    INSUFFICIENT_CREDITS,
    authorize,
    available,
    capture,
    new_generation,
    refund_generation,
    refused,
    reserve,
)
from support.roles import (
    ALICE,
    add,
    assert_refused,
    balance,
    connected,
    execute,
    record,
    sale,
)

INSERT = f"insert into public.transactions (user_id, amount, type) values ('{ALICE}', 5, 'PURCHASE')"

# Functions that a caller could place before pg_catalog. Each raises an error when it is called.
HIJACKS = {
    "sum(bigint)": "numeric",
    "now()": "timestamptz",
    "unnest(text[])": "setof text",
    "jsonb_array_elements(jsonb)": "setof jsonb",
    "hashtextextended(text, bigint)": "bigint",
    "pg_advisory_xact_lock(bigint)": "void",
    "strpos(text, text)": "integer",
    "equal(uuid, uuid)": "boolean",
    "equal(text, text)": "boolean",
    "equal(integer, integer)": "boolean",
    "less(integer, integer)": "boolean",
    "differ(bigint, integer)": "boolean",
    "plus(bigint, numeric)": "numeric",
    "field(jsonb, text)": "text",
    "equal(transaction_type, transaction_type)": "boolean",
    "equal(bigint, bigint)": "boolean",
    "less(bigint, bigint)": "boolean",
    "minus(bigint, bigint)": "bigint",
    "format(text, text)": "text",
    "clock_timestamp()": "timestamptz",
    "uuid_hash(uuid)": "integer",
    "pg_advisory_xact_lock(integer, integer)": "void",
    "less(timestamptz, timestamptz)": "boolean",
    "greater(timestamptz, timestamptz)": "boolean",
}
HIJACKED_OPERATORS = {
    "=": [("equal", kind, kind) for kind in ("uuid", "text", "integer", "bigint", "transaction_type")],
    "<": [("less", kind, kind) for kind in ("integer", "bigint", "timestamptz")],
    ">": [("greater", "timestamptz", "timestamptz")],
    "-": [("minus", "bigint", "bigint")],
    "<>": [("differ", "bigint", "integer")],
    "+": [("plus", "bigint", "numeric")],
    "->>": [("field", "jsonb", "text")],
}
SHADOWS = """
    set search_path = pg_temp, hostile, pg_catalog, public;
    create temp table users (id uuid, email text, credits_balance bigint);
    create temp table entries (user_id uuid, amount bigint);
    create temp table transactions (user_id uuid, amount bigint, type text, stripe_id text, payment_id text);
    create temp table sales (payment_id text, version smallint, user_id uuid, credits bigint, paid boolean);
    create temp table reversals (reversal_id text, payment_id text);
    create temp table payment_links (invoice_id text, payment_id text);
    create temp table parked_events (event_id text, payload json);
"""
SHADOWED_TYPES = """
    create domain pg_temp.bool as boolean check (false);
    create domain pg_temp.int8 as bigint check (false);
    create domain pg_temp.numeric as decimal check (false);
    create domain pg_temp.uuid as pg_catalog.uuid check (false);
    create domain pg_temp.text as varchar check (false);
"""


@pytest.fixture
def hostile(owner: psycopg.Connection) -> None:
    """A schema of functions and operators that must never be called."""
    owner.execute("create schema hostile; grant usage on schema hostile to public")
    for signature, result in HIJACKS.items():
        body = "language plpgsql as $$begin raise exception 'hijacked'; end$$"
        owner.execute(f"create function hostile.{signature} returns {result} {body}")
    for operator, functions in HIJACKED_OPERATORS.items():
        for function, left, right in functions:
            options = f"function = hostile.{function}, leftarg = {left}, rightarg = {right}"
            owner.execute(f"create operator hostile.{operator} ({options})")


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("shadows", [SHADOWS, SHADOWS + SHADOWED_TYPES], ids=["tables", "types"])
def test_ledger_insert_with_shadowed_names_credits_real_user(
    database: Database, owner: psycopg.Connection, shadows: str
) -> None:
    with connected(database, "service_role") as attacker:
        attacker.execute(shadows)
        execute(attacker, INSERT)
        assert execute(attacker, "table pg_temp.users") == []
    assert balance(owner, ALICE) == 105


@pytest.mark.usefixtures("hostile")
def test_sale_with_shadowed_names_credits_real_user(database: Database, owner: psycopg.Connection) -> None:
    with connected(database, "service_role") as attacker:
        attacker.execute(SHADOWS)
        assert record(attacker, sale("pi_2", ALICE)) == {"outcome": "recorded"}
        assert execute(attacker, "table pg_temp.transactions") == []
    assert balance(owner, ALICE) == 200


@pytest.mark.usefixtures("hostile")
def test_event_parked_with_shadowed_names_is_stored(database: Database, owner: psycopg.Connection) -> None:
    with connected(database, "service_role") as attacker:
        attacker.execute(SHADOWS)
        execute(attacker, "select billing.park('evt_1', 'some.type', 'missing_user', 'pi_2', '{}')")
    assert execute(owner, "select event_id from billing.parked_events") == [("evt_1",)]


@pytest.mark.usefixtures("hostile")
def test_balance_write_with_shadowed_functions_is_refused(database: Database, owner: psycopg.Connection) -> None:
    owner.execute("create function hostile.pg_trigger_depth() returns integer language sql return 9")
    assert_refused(
        database, "owner", "set search_path = hostile, pg_catalog; update public.users set credits_balance = 5"
    )


@pytest.mark.usefixtures("owner")
def test_select_with_shadowed_names_returns_the_real_row(database: Database) -> None:
    with connected(database, "authenticated", user=ALICE) as alice:
        alice.execute(SHADOWS.replace("hostile, ", ""))
        assert execute(alice, "select credits_balance from public.users") == [(100,)]


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("shadows", [SHADOWS, SHADOWS + SHADOWED_TYPES], ids=["tables", "types"])
def test_generation_with_shadowed_names_moves_real_credits(
    database: Database, owner: psycopg.Connection, shadows: str
) -> None:
    """The caller's own users table authorizes nothing and is not debited."""
    generation = new_generation()
    with connected(database, "service_role") as attacker:
        attacker.execute(shadows)
        attacker.execute(f"insert into pg_temp.users values ('{ALICE}', null, 1000000)")
        with refused(INSUFFICIENT_CREDITS):
            authorize(attacker, ALICE, 101, generation)
        assert authorize(attacker, ALICE, 30, generation) == balance(owner, ALICE) == 70
        assert refund_generation(attacker, generation) == balance(owner, ALICE) == 100
        assert execute(attacker, "table pg_temp.transactions") == []


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("shadows", [SHADOWS, SHADOWS + SHADOWED_TYPES], ids=["tables", "types"])
def test_hold_with_shadowed_names_holds_real_credits(
    database: Database, owner: psycopg.Connection, shadows: str
) -> None:
    """Neither the caller's own table of holds nor its own clock counts."""
    generation = new_generation()
    with connected(database, "service_role") as attacker:
        attacker.execute("create temp table generation_holds (like public.generation_holds)")
        attacker.execute(shadows)
        assert reserve(attacker, ALICE, 60, generation) == 40
        assert available(attacker, ALICE) == 40
        with refused(INSUFFICIENT_CREDITS):
            authorize(attacker, ALICE, 41, new_generation())
        assert capture(attacker, generation, 45) == balance(owner, ALICE) == 55
        assert execute(attacker, "table pg_temp.generation_holds") == []


@pytest.mark.usefixtures("hostile")
def test_refund_of_a_shadowed_generation_is_refused(database: Database, owner: psycopg.Connection) -> None:
    """The check of a refund reads the real ledger."""
    bought = add(owner, ALICE, 10)
    assert_refused(
        database,
        "service_role",
        f"""
        {SHADOWS.replace("(user_id uuid, amount", "(id uuid, user_id uuid, amount")}
        insert into pg_temp.transactions (id, user_id, amount, type) values ('{bought}', '{ALICE}', -10, 'GENERATION');
        insert into public.transactions (user_id, amount, type, refunds) values ('{ALICE}', 10, 'REFUND', '{bought}')
        """,
        "23514",
    )
