"""authorize_generation() and refund_generation(): return values, errors and ledger rows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from support.databases import Database
from support.generations import (
    GENERATION_MISMATCH,
    GENERATION_REFUNDED,
    INSUFFICIENT_CREDITS,
    INVALID_COST,
    UNKNOWN_GENERATION,
    UNKNOWN_USER,
    authorize,
    new_generation,
    refund_generation,
    refused,
)
from support.roles import ALICE, BOB, CAROL, add, balance, connected, contents, execute

HIGHEST = 2**53 - 1
FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"


def entries(connection: psycopg.Connection, user: str = ALICE) -> list[tuple[Any, ...]]:
    """Return the user's ledger rows without purchases, oldest first."""
    return connection.execute(
        """
        select id::text, amount, type::text, refunds::text
        from public.transactions
        where user_id = %s and type <> 'PURCHASE'
        order by created_at, amount
        """,
        [user],
    ).fetchall()


# Authorization


def test_authorize_with_enough_credits_returns_the_new_balance(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    assert authorize(generator, ALICE, 30, FIRST) == 70
    assert balance(owner, ALICE) == 70


def test_authorize_writes_a_ledger_row_with_the_generation_id(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """The row has no Stripe ids and no money."""
    authorize(generator, ALICE, 30, FIRST)
    [(row,)] = execute(owner, "select to_jsonb(line) from public.transactions as line where type = 'GENERATION'")
    filled = {name: value for name, value in row.items() if value is not None and name != "created_at"}
    assert filled == {"id": FIRST, "user_id": ALICE, "amount": -30, "type": "GENERATION"}


def test_authorize_of_the_whole_balance_leaves_zero(generator: psycopg.Connection) -> None:
    assert authorize(generator, ALICE, 100, FIRST) == 0


def test_authorize_keeps_other_users_balances(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    authorize(generator, ALICE, 30, FIRST)
    assert balance(owner, BOB) == 50


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("cost", [101, HIGHEST, HIGHEST + 1, 2**63 - 1])
def test_authorize_of_more_than_the_balance_is_refused(generator: psycopg.Connection, cost: int) -> None:
    """The largest bigint does not overflow."""
    with refused(INSUFFICIENT_CREDITS):
        authorize(generator, ALICE, cost, FIRST)


def test_refused_authorize_succeeds_after_a_purchase(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A refusal does not use up the generation id."""
    with refused(INSUFFICIENT_CREDITS):
        authorize(generator, ALICE, 101, FIRST)
    add(owner, ALICE, 1)
    assert authorize(generator, ALICE, 101, FIRST) == 0


def test_authorize_in_debt_is_refused_until_purchases_cover_it(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """A refund of spent credits leaves a debt, and new credits pay it first."""
    authorize(generator, ALICE, 100, FIRST)
    add(owner, ALICE, -100, type="REFUND")
    add(owner, ALICE, 100)
    with refused(INSUFFICIENT_CREDITS):
        authorize(generator, ALICE, 1, SECOND)
    add(owner, ALICE, 1)
    assert authorize(generator, ALICE, 1, SECOND) == 0


def test_authorize_retry_debits_nothing(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """It returns the current balance."""
    authorize(generator, ALICE, 70, FIRST)
    add(owner, ALICE, 5)
    assert authorize(generator, ALICE, 70, FIRST) == 35
    assert entries(owner) == [(FIRST, -70, "GENERATION", None)]


def test_authorize_retry_with_the_balance_spent_succeeds(generator: psycopg.Connection) -> None:
    """The generation is already paid for."""
    authorize(generator, ALICE, 60, FIRST)
    authorize(generator, ALICE, 40, SECOND)
    assert authorize(generator, ALICE, 60, FIRST) == 0


@pytest.mark.parametrize(("user", "cost"), [(ALICE, 31), (ALICE, 29), (ALICE, 2**63 - 1), (BOB, 30)])
def test_authorize_retry_with_another_cost_or_user_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, user: str, cost: int
) -> None:
    """A generation id belongs to one user and one cost."""
    authorize(generator, ALICE, 30, FIRST)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        authorize(generator, user, cost, FIRST)
    assert contents(owner) == before


@pytest.mark.parametrize(("kind", "amount"), [("PURCHASE", 30), ("REFUND", -30), ("REFUND", 30)])
def test_authorize_with_the_id_of_another_row_type_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, kind: str, amount: int
) -> None:
    """A purchase or refund never counts as a generation, even with the same amount."""
    add(owner, ALICE, amount, type=kind, id=FIRST)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        authorize(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


def test_authorize_after_the_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Otherwise a refunded generation could run again for free."""
    authorize(generator, ALICE, 30, FIRST)
    refund_generation(generator, FIRST)
    before = contents(owner)
    with refused(GENERATION_REFUNDED):
        authorize(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("cost", [0, -1, -(2**63), None])
def test_authorize_without_a_positive_cost_is_refused(generator: psycopg.Connection, cost: int | None) -> None:
    """A negative cost would create credits."""
    with refused(INVALID_COST):
        authorize(generator, ALICE, cost, FIRST)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("user", [CAROL, None])
def test_authorize_for_an_unknown_user_is_refused(generator: psycopg.Connection, user: str | None) -> None:
    with refused(UNKNOWN_USER):
        authorize(generator, user, 1, FIRST)


@pytest.mark.usefixtures("unchanged")
def test_authorize_without_an_id_is_refused(generator: psycopg.Connection) -> None:
    """Without an id, a retry would debit the cost twice."""
    with refused(UNKNOWN_GENERATION):
        authorize(generator, ALICE, 1, None)


def test_authorize_refused_in_a_savepoint_keeps_the_rest(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """A refusal rolls back only its own savepoint."""
    with generator.transaction():
        authorize(generator, ALICE, 90, FIRST)
        with refused(INSUFFICIENT_CREDITS), generator.transaction():
            authorize(generator, ALICE, 11, SECOND)
    assert entries(owner) == [(FIRST, -90, "GENERATION", None)]


# Refunds of generations


def test_refund_returns_the_credits_and_the_new_balance(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """The row of the refund refers to the generation."""
    authorize(generator, ALICE, 30, FIRST)
    assert refund_generation(generator, FIRST) == 100
    assert balance(owner, ALICE) == 100
    _, (_, *refund) = entries(owner)
    assert refund == [30, "REFUND", FIRST]


def test_refund_retry_adds_nothing(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """It returns the current balance."""
    authorize(generator, ALICE, 30, FIRST)
    refund_generation(generator, FIRST)
    add(owner, ALICE, 5)
    assert [refund_generation(generator, FIRST) for _ in range(2)] == [105, 105]
    assert len(entries(owner)) == 2


def test_refund_in_debt_returns_the_credits(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    authorize(generator, ALICE, 30, FIRST)
    add(owner, ALICE, -100, type="REFUND")
    assert refund_generation(generator, FIRST) == 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("generation", [FIRST, None])
def test_refund_of_an_unknown_generation_is_refused(generator: psycopg.Connection, generation: str | None) -> None:
    with refused(UNKNOWN_GENERATION):
        refund_generation(generator, generation)


@pytest.mark.parametrize(("kind", "amount"), [("PURCHASE", 30), ("REFUND", -30), ("REFUND", 30)])
def test_refund_of_another_row_type_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, kind: str, amount: int
) -> None:
    """Only generations can be refunded."""
    add(owner, ALICE, amount, type=kind, id=FIRST)
    before = contents(owner)
    with refused(UNKNOWN_GENERATION):
        refund_generation(generator, FIRST)
    assert contents(owner) == before


def test_refund_of_a_generations_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    authorize(generator, ALICE, 30, FIRST)
    refund_generation(generator, FIRST)
    [refund] = [id_ for id_, _, kind, _ in entries(owner) if kind == "REFUND"]
    with refused(UNKNOWN_GENERATION):
        refund_generation(generator, refund)


def test_refund_of_an_erased_users_generation_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """This holds for a generation with and without an earlier refund."""
    for generation in (FIRST, SECOND):
        authorize(generator, ALICE, 30, generation)
    refund_generation(generator, FIRST)
    execute(owner, f"select billing.erase_user('{ALICE}')")
    for generation in (FIRST, SECOND):
        with refused(UNKNOWN_GENERATION):
            refund_generation(generator, generation)
    assert entries(owner) == []


def test_refund_above_the_maximum_balance_changes_nothing(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """The maximum is the largest integer that JavaScript represents exactly."""
    authorize(generator, ALICE, 30, FIRST)
    add(owner, ALICE, HIGHEST - 70, type="REFUND")
    before = contents(owner)
    with pytest.raises(errors.CheckViolation, match="users_credits_balance_range"):
        refund_generation(generator, FIRST)
    assert contents(owner) == before


def test_balance_after_many_calls_is_the_sum_of_the_ledger(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """Every call returns this sum."""
    generations = [new_generation() for _ in range(12)]
    for generation in generations:
        returned = authorize(generator, ALICE, 8, generation)
        assert [(returned,)] == execute(owner, f"select sum(amount) from public.transactions where user_id = '{ALICE}'")
    for generation in generations[::2]:
        returned = refund_generation(generator, generation)
        assert [(returned,)] == execute(owner, f"select sum(amount) from public.transactions where user_id = '{ALICE}'")


# REFUND rows written without the functions


@pytest.mark.parametrize("role", ["service_role", "owner"])
@pytest.mark.parametrize(
    "target", ["a purchase", "a refund", "another user's", "more than it cost", "less than it cost", "itself"]
)
def test_refund_row_that_matches_no_generation_is_refused(
    database: Database, owner: psycopg.Connection, target: str, role: str
) -> None:
    """A REFUND row must match a generation of the same user and cost."""
    add(owner, ALICE, -10, type="GENERATION", id=FIRST)
    bought = add(owner, ALICE, 10)
    taken = add(owner, ALICE, -10, type="REFUND")
    user, amount, refunds = {
        "a purchase": (ALICE, 10, bought),
        "a refund": (ALICE, 10, taken),
        "another user's": (BOB, 10, FIRST),
        "more than it cost": (ALICE, 11, FIRST),
        "less than it cost": (ALICE, 9, FIRST),
        "itself": (ALICE, 10, SECOND),
    }[target]
    before = contents(owner)
    with connected(database, role) as writer, pytest.raises(errors.CheckViolation) as caught:
        add(writer, user, amount, type="REFUND", refunds=refunds, id=SECOND)
    assert caught.value.diag.constraint_name == "transactions_refunds_a_generation"
    assert contents(owner) == before


def test_generation_and_its_refund_in_one_statement_are_stored(owner: psycopg.Connection) -> None:
    """So a ledger can be copied in any row order."""
    execute(
        owner,
        f"""
        insert into public.transactions (id, user_id, amount, type, refunds) values
            ('{SECOND}', '{ALICE}', 10, 'REFUND', '{FIRST}'),
            ('{FIRST}', '{ALICE}', -10, 'GENERATION', null)
        """,
    )
    assert balance(owner, ALICE) == 100


# Isolation levels


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_authorize_with_an_old_snapshot_fails_to_serialize(
    database: Database, generator: psycopg.Connection, owner: psycopg.Connection, level: IsolationLevel
) -> None:
    """The balance is not overdrawn, and the caller can retry in a new transaction."""
    with psycopg.connect(database.admin_url) as old:
        old.isolation_level = level
        assert balance(old, ALICE) == 100
        authorize(generator, ALICE, 60, FIRST)
        with pytest.raises(errors.SerializationFailure):
            authorize(old, ALICE, 60, SECOND)
    assert balance(owner, ALICE) == 40


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_second_refund_with_an_old_snapshot_fails_to_serialize(
    database: Database, generator: psycopg.Connection, owner: psycopg.Connection, level: IsolationLevel
) -> None:
    """The credits are returned once."""
    authorize(generator, ALICE, 60, FIRST)
    with psycopg.connect(database.admin_url) as old:
        old.isolation_level = level
        assert balance(old, ALICE) == 40
        refund_generation(generator, FIRST)
        with pytest.raises(errors.SerializationFailure):
            refund_generation(old, FIRST)
    assert balance(owner, ALICE) == 100


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_authorize_of_a_taken_id_with_an_old_snapshot_fails(
    database: Database, generator: psycopg.Connection, owner: psycopg.Connection, level: IsolationLevel
) -> None:
    """Another user's generation has the id, though the snapshot does not show it."""
    with psycopg.connect(database.admin_url) as old:
        old.isolation_level = level
        assert balance(old, BOB) == 50
        authorize(generator, ALICE, 50, FIRST)
        with pytest.raises(errors.SerializationFailure):
            authorize(old, BOB, 50, FIRST)
    assert balance(owner, BOB) == 50
