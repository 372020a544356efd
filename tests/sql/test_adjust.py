"""billing.adjust() gives and takes credits, once for each id, and makes no debt by accident."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest

from support.databases import Database
from support.generations import authorize, new_generation, refused
from support.ledger_queries import WAITS, sessions, wrong_balances
from support.operators import (
    ADJUSTMENT_MISMATCH,
    DEBT,
    INVALID_AMOUNT,
    MISSING_ID,
    UNKNOWN_USER,
    actions,
    adjust,
    new_id,
)
from support.roles import ALICE, BOB, CAROL, balance, connected, execute
from support.waiting import WAIT_TIMEOUT, eventually

CALLERS = 8


@pytest.fixture
def operator(database: Database, owner: psycopg.Connection) -> psycopg.Connection:
    """The operator's connection to a ledger in which Alice has 100 credits and Bob 50."""
    assert owner
    with connected(database, "billing_operator") as operator:
        yield operator


def test_adjust_adds_one_row_with_the_description(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    given = new_id()
    number, after, is_new = adjust(operator, ALICE, 30, id=given, description="Welcome bonus")
    assert (after, is_new, balance(owner, ALICE)) == (130, True, 130)
    columns = "id::text, amount, type::text, description, stripe_id, payment_id, event_id"
    rows = execute(owner, f"select {columns} from public.transactions where stripe_id is null")
    assert rows == [(given, 30, "REFUND", "Welcome bonus", None, None, None)]
    assert execute(owner, "select number, id::text, description from billing.operator_actions") == [
        (number, given, "Welcome bonus")
    ]


def test_adjust_below_zero_takes_credits(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    assert adjust(operator, ALICE, -100)[1:] == (0, True)
    assert actions(owner) == [("adjust", ALICE, "a bonus", 0, 100)]


def test_user_sees_the_description_and_not_the_reason(database: Database, operator: psycopg.Connection) -> None:
    adjust(operator, ALICE, 5, reason="a complaint", description="Sorry for the delay")
    with connected(database, "authenticated", user=ALICE) as alice:
        seen = str(execute(alice, "select * from public.transactions"))
    assert "Sorry for the delay" in seen
    assert "complaint" not in seen


def test_same_adjustment_again_changes_nothing(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """As after a lost answer, also by another operator and beyond the balance that is left."""
    given = new_id()
    first = adjust(operator, ALICE, -80, id=given)
    assert adjust(operator, ALICE, -80, id=given, by="bob", channel="console") == (first[0], 20, False)
    assert balance(owner, ALICE) == 20
    assert len(actions(owner)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": 6},
        {"amount": -5},
        {"amount": -500},
        {"user": BOB},
        {"reason": "another"},
        {"description": "Another"},
        {"description": None},
    ],
    ids=str,
)
def test_same_id_with_other_values_is_refused(
    operator: psycopg.Connection, owner: psycopg.Connection, changed: dict[str, str | int | None]
) -> None:
    values = {"user": ALICE, "amount": 5, "id": new_id(), "description": "Thanks"}
    adjust(operator, **values)
    with refused(ADJUSTMENT_MISMATCH):
        adjust(operator, **values | changed)
    assert (balance(owner, ALICE), balance(owner, BOB)) == (105, 50)


def test_id_of_a_generation_is_refused(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    generation = new_generation()
    authorize(owner, ALICE, 5, generation)
    with refused(ADJUSTMENT_MISMATCH):
        adjust(operator, ALICE, -5, id=generation)


def test_id_of_another_action_is_refused(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Such as the id of an assignment, which writes no ledger row of this id."""
    known = new_id()
    execute(owner, f"select billing.add_action(1, '{known}', 'assign', 'pi_1', 'ann', 'sql', 'test', null, 5, 0)")
    with refused(ADJUSTMENT_MISMATCH):
        adjust(operator, ALICE, 5, id=known)


def test_id_of_a_hold_is_refused(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Otherwise the hold could never be captured."""
    generation = new_generation()
    execute(owner, f"select public.reserve_generation('{ALICE}', 5, '{generation}')")
    with refused(ADJUSTMENT_MISMATCH):
        adjust(operator, ALICE, -5, id=generation)


def test_id_of_an_adjustment_authorizes_no_generation(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    given = new_id()
    adjust(operator, ALICE, -5, id=given)
    with refused(("CR002", "generation_mismatch")):
        authorize(owner, ALICE, 5, given)


@pytest.mark.parametrize("amount", [0, None, 10**9 + 1, -(10**9) - 1, -(2**63)])
def test_amount_out_of_range_is_refused(operator: psycopg.Connection, amount: int | None) -> None:
    with refused(INVALID_AMOUNT):
        adjust(operator, ALICE, amount, allow_debt=True)


def test_unknown_user_is_refused(operator: psycopg.Connection) -> None:
    with refused(UNKNOWN_USER):
        adjust(operator, CAROL, 5)


def test_missing_id_is_refused(operator: psycopg.Connection) -> None:
    with refused(MISSING_ID):
        adjust(operator, ALICE, 5, id=None)


def test_description_of_200_characters_is_stored(operator: psycopg.Connection) -> None:
    assert adjust(operator, ALICE, 5, description="ü" * 200)[1] == 105


# Debt


def test_taking_more_than_the_balance_is_refused(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    with refused(DEBT):
        adjust(operator, ALICE, -101)
    assert (balance(owner, ALICE), actions(owner)) == (100, [])


def test_debt_that_is_allowed_is_made(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    assert adjust(operator, ALICE, -101, allow_debt=True)[1] == balance(owner, ALICE) == -1


def test_giving_to_a_user_in_debt_needs_no_permission(operator: psycopg.Connection) -> None:
    adjust(operator, ALICE, -300, allow_debt=True)
    assert adjust(operator, ALICE, 50)[1] == -150


def test_held_credits_are_not_taken(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A take-back goes down to the available credits, not to the balance."""
    execute(owner, f"select public.reserve_generation('{ALICE}', 60, '{new_generation()}')")
    with refused(DEBT):
        adjust(operator, ALICE, -41)
    assert adjust(operator, ALICE, -40)[1] == 60
    assert adjust(operator, ALICE, -1, allow_debt=True)[1] == 59


def test_null_permission_allows_no_debt(operator: psycopg.Connection) -> None:
    with refused(DEBT):
        adjust(operator, ALICE, -101, allow_debt=None)


# Concurrency


def test_adjustment_sent_many_times_at_once_acts_once(database: Database, owner: psycopg.Connection) -> None:
    given, start = new_id(), Barrier(CALLERS)

    def call(_: int) -> bool:
        with connected(database, "billing_operator") as operator:
            start.wait()
            return adjust(operator, ALICE, 5, id=given)[2]

    with ThreadPoolExecutor(CALLERS) as threads:
        assert sorted(threads.map(call, range(CALLERS))) == [False] * (CALLERS - 1) + [True]
    assert balance(owner, ALICE) == 105
    assert len(actions(owner)) == 1


def test_one_id_for_two_users_at_once_is_used_once(database: Database, owner: psycopg.Connection) -> None:
    """The calls lock different users; the second waits for the id."""
    given = new_id()
    with (
        connected(database, "billing_operator") as first,
        connected(database, "billing_operator") as second,
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        ThreadPoolExecutor(1) as thread,
    ):
        with first.transaction():
            adjust(first, ALICE, 5, id=given)
            waits = thread.submit(adjust, second, BOB, 5, id=given)
            eventually(lambda: waits.done() or sessions(watcher, WAITS) == 1)
        with refused(ADJUSTMENT_MISMATCH):
            waits.result(WAIT_TIMEOUT)
    assert (balance(owner, ALICE), balance(owner, BOB)) == (105, 50)


def test_take_back_waits_for_a_generation_and_makes_no_debt(database: Database, owner: psycopg.Connection) -> None:
    """The credits are compared under the lock of the user's row."""
    with (
        connected(database, "service_role") as generator,
        connected(database, "billing_operator") as operator,
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        ThreadPoolExecutor(1) as thread,
    ):
        with generator.transaction():
            authorize(generator, ALICE, 60, new_generation())
            waits = thread.submit(adjust, operator, ALICE, -60)
            eventually(lambda: waits.done() or sessions(watcher, WAITS) == 1)
        with refused(DEBT):
            waits.result(WAIT_TIMEOUT)
    assert balance(owner, ALICE) == 40


def test_adjustments_beside_an_erasure_deadlock_never(database: Database, owner: psycopg.Connection) -> None:
    start = Barrier(CALLERS + 1)

    def call(_: int) -> None:
        with connected(database, "billing_operator") as operator:
            start.wait()
            for _ in range(5):
                adjust(operator, BOB, 1)

    with ThreadPoolExecutor(CALLERS) as threads:
        done = threads.map(call, range(CALLERS))
        start.wait()
        execute(owner, f"select billing.erase_user('{ALICE}')")
        list(done)
    assert balance(owner, BOB) == 50 + 5 * CALLERS
    assert wrong_balances(owner) == []
