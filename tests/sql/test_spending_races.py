"""Concurrent spending: parallel generations, purchases and refunds of the same users."""

from __future__ import annotations

from collections import Counter
from random import Random

import psycopg
import pytest

from support.calls import CALLERS, Call, Waiting, run_rounds
from support.databases import Database
from support.generations import (
    GENERATION_MISMATCH,
    INSUFFICIENT_CREDITS,
    UNKNOWN_GENERATION,
    authorize,
    new_generation,
    refund_generation,
    refused,
)
from support.ledger_queries import wrong_balances
from support.roles import ALICE, BOB, add, balance, connected, execute, record, refund, sale, sign_up
from support.waiting import WAIT_TIMEOUT

ROUNDS = 25


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice and Bob have 100 credits each."""
    sign_up(admin, ALICE, BOB)
    add(admin, ALICE, 100)
    add(admin, BOB, 100)
    return admin


def spend(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: authorize(connection, user, cost, generation or new_generation())


def give_back(generation: str) -> Call:
    return lambda connection: refund_generation(connection, generation)


def amounts(connection: psycopg.Connection, kind: str, user: str = ALICE) -> list[int]:
    """Return the amounts of the user's rows of one type."""
    query = "select amount from public.transactions where type = %s and user_id = %s"
    return [amount for (amount,) in connection.execute(query, [kind, user])]


# Concurrent calls


def test_concurrent_spending_never_overdraws(callers: list[psycopg.Connection], owner: psycopg.Connection) -> None:
    """100 credits pay for exactly 100 of 300 generations, with 100 distinct balances; the rest are refused."""
    results = Counter(result for each in run_rounds(callers, [[spend(ALICE, 1)]] * ROUNDS) for result in each)
    assert results == {"CR001": CALLERS * ROUNDS - 100} | dict.fromkeys(range(100), 1)
    assert amounts(owner, "GENERATION") == [-1] * 100
    assert balance(owner, ALICE) == 0


def test_concurrent_authorize_of_one_generation_debits_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """All callers receive the same balance."""
    rounds = [[spend(ALICE, 4, new_generation())] for _ in range(ROUNDS)]
    assert run_rounds(callers, rounds) == [[100 - 4 * number] * CALLERS for number in range(1, ROUNDS + 1)]
    assert amounts(owner, "GENERATION") == [-4] * ROUNDS


def test_concurrent_generation_of_two_users_debits_one_user(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """One user's calls succeed, the other's are refused, and no call deadlocks."""
    ids = [new_generation() for _ in range(ROUNDS)]
    for results in run_rounds(callers, [[spend(ALICE, 4, id_), spend(BOB, 4, id_)] for id_ in ids]):
        assert Counter(result == "CR002" for result in results) == {True: CALLERS // 2, False: CALLERS // 2}
        assert len(set(results[::2])) == len(set(results[1::2])) == 1
    assert len(amounts(owner, "GENERATION", ALICE) + amounts(owner, "GENERATION", BOB)) == ROUNDS
    assert wrong_balances(owner) == []


def test_concurrent_refund_of_one_generation_is_booked_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """All callers receive the same balance."""
    ids = [new_generation() for _ in range(ROUNDS)]
    for id_ in ids:
        authorize(owner, ALICE, 4, id_)
    assert run_rounds(callers, [[give_back(id_)] for id_ in ids]) == [
        [4 * number] * CALLERS for number in range(1, ROUNDS + 1)
    ]
    assert amounts(owner, "REFUND") == [4] * ROUNDS


def test_concurrent_authorize_and_refund_debit_at_most_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """In either order, a refunded generation is never debited again."""
    for id_ in [new_generation() for _ in range(ROUNDS)]:
        [results] = run_rounds(callers, [[spend(ALICE, 100, id_), give_back(id_)]])
        assert {*results[::2]} <= {0, "CR003"}
        assert {*results[1::2]} <= {100, "CR004"}
        refund_generation(owner, id_)
        assert balance(owner, ALICE) == 100
    assert amounts(owner, "GENERATION") == [-100] * ROUNDS


def test_concurrent_spending_purchases_and_refunds_add_up(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Deliveries that change both users, generations and their refunds neither deadlock nor overdraw."""
    random = Random(6)

    def deliver(connection: psycopg.Connection) -> int:
        users, number = random.sample([ALICE, BOB], 2), random.randrange(10**9)
        record(connection, *(sale(f"pi_{number}_{user[0]}", user, credits=3) for user in users))
        record(connection, *(refund(f"re_{number}_{user[0]}", f"pi_{number}_{user[0]}", 334) for user in users[::-1]))
        return 0

    def generate(connection: psycopg.Connection) -> int:
        generation = new_generation()
        new_balance = authorize(connection, random.choice([ALICE, BOB]), random.randint(1, 9), generation)
        assert new_balance >= 0
        return new_balance if random.random() < 0.5 else refund_generation(connection, generation)

    rounds = run_rounds(callers, [[deliver, generate, generate]] * ROUNDS * 2)
    results = [result for each in rounds for result in each]
    assert {refusal for refusal in results if isinstance(refusal, str)} <= {"CR001"}
    assert sum(amounts(owner, "PURCHASE", ALICE)) == 100 + 3 * ROUNDS * 2 * CALLERS // 3
    assert wrong_balances(owner) == []


# Waiting for locks


def test_authorize_after_waiting_for_a_purchase_spends_it(callers: list[psycopg.Connection], waiting: Waiting) -> None:
    """The balance is read after the wait for the user's row."""
    with callers[0].transaction():
        record(callers[0], sale("pi_1", ALICE, credits=50))
        spending = waiting(spend(ALICE, 150), callers[1])
    assert spending.result(WAIT_TIMEOUT) == 0


@pytest.mark.parametrize("committed", [True, False])
def test_authorize_after_waiting_for_another_spends_the_rest(
    callers: list[psycopg.Connection], waiting: Waiting, *, committed: bool
) -> None:
    """The balance covers one of two generations: the second succeeds only if the first rolls back."""
    with callers[0].transaction(force_rollback=not committed):
        authorize(callers[0], ALICE, 60, new_generation())
        spending = waiting(spend(ALICE, 60), callers[1])
    assert spending.result(WAIT_TIMEOUT) == ("CR001" if committed else 40)


@pytest.mark.parametrize("committed", [True, False])
def test_authorize_waits_for_an_uncommitted_id(
    callers: list[psycopg.Connection],
    owner: psycopg.Connection,
    waiting: Waiting,
    *,
    committed: bool,
) -> None:
    """It succeeds only if the other user's transaction rolls back."""
    generation = new_generation()
    with callers[0].transaction(force_rollback=not committed):
        authorize(callers[0], ALICE, 60, generation)
        spending = waiting(spend(BOB, 60, generation), callers[1])
    assert spending.result(WAIT_TIMEOUT) == (GENERATION_MISMATCH[0] if committed else 40)
    assert wrong_balances(owner) == []


def test_refund_after_waiting_for_an_erase_is_refused(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    generation = new_generation()
    authorize(owner, ALICE, 60, generation)
    with owner.transaction():
        # The first step of erase_user(). Its other steps would lock the whole ledger.
        execute(owner, f"select from public.users where id = '{ALICE}' for update")
        refunding = waiting(give_back(generation), callers[0])
        execute(owner, f"select billing.erase_user('{ALICE}')")
    assert refunding.result(WAIT_TIMEOUT) == UNKNOWN_GENERATION[0]


def test_authorize_does_not_wait_for_another_users_row(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    with owner.transaction():
        authorize(owner, ALICE, 60, new_generation())
        assert authorize(callers[0], BOB, 60, new_generation()) == 40


def test_spending_does_not_wait_for_a_foreign_key_lock(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """An insert share-locks its user's row before the update, so waiting for that lock would deadlock."""
    generation = new_generation()
    with owner.transaction():
        execute(owner, "select from public.users for key share")
        assert authorize(callers[0], ALICE, 60, generation) == 40
        assert refund_generation(callers[0], generation) == 100


def test_balance_read_does_not_wait_for_spending(database: Database, owner: psycopg.Connection) -> None:
    """A user's page shows the last committed balance."""
    with owner.transaction():
        authorize(owner, ALICE, 60, new_generation())
        with connected(database, "authenticated", user=ALICE) as page:
            assert execute(page, "select credits_balance from public.users") == [(100,)]


def test_refused_authorize_leaves_no_lock(callers: list[psycopg.Connection]) -> None:
    """The refusal releases the user's row, though the caller's transaction continues."""
    with callers[0].transaction():
        with refused(INSUFFICIENT_CREDITS), callers[0].transaction():
            authorize(callers[0], ALICE, 101, new_generation())
        assert authorize(callers[1], ALICE, 100, new_generation()) == 0
