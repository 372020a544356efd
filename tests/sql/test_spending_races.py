"""Spending under parallel load: with itself, with purchases and with refunds of the same users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from threading import Barrier

import psycopg
import pytest

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
from support.ledger_queries import WAITS, sessions
from support.roles import ALICE, BOB, add, balance, connected, execute, record, refund, sale, sign_up
from support.waiting import PATIENCE, eventually

CALLERS = 12
ROUNDS = 25

Call = Callable[[psycopg.Connection], int]
Answers = list[int | str]
Waiting = Callable[[Call, psycopg.Connection], Future[int | str]]


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice and Bob have 100 credits each."""
    sign_up(admin, ALICE, BOB)
    add(admin, ALICE, 100)
    add(admin, BOB, 100)
    return admin


@pytest.fixture
def callers(database: Database, owner: psycopg.Connection) -> Iterator[list[psycopg.Connection]]:
    """Connections as service_role, for as many threads."""
    assert owner
    with ExitStack() as stack:
        yield [stack.enter_context(connected(database, "service_role")) for _ in range(CALLERS)]


@pytest.fixture
def waiting(database: Database) -> Iterator[Waiting]:
    """Starts a call in a thread, and returns once it waits for a lock."""
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.superuser_url, autocommit=True) as watcher:

        def start(call: Call, connection: psycopg.Connection) -> Future[int | str]:
            answered = thread.submit(answer, call, connection)
            eventually(lambda: answered.done() or sessions(watcher, WAITS) == 1)
            return answered

        yield start


def answer(call: Call, connection: psycopg.Connection) -> int | str:
    """The balance that a call returns, or the SQLSTATE of its refusal."""
    try:
        return call(connection)
    except psycopg.Error as error:
        return error.sqlstate or str(error)


def at_once(connections: Sequence[psycopg.Connection], rounds: Sequence[Sequence[Call]]) -> list[Answers]:
    """What the calls of each round answer, which each connection starts at the same moment."""
    start = Barrier(len(connections), timeout=PATIENCE)

    def lane(number: int) -> Answers:
        answers = []
        for calls in rounds:
            start.wait()
            answers.append(answer(calls[number % len(calls)], connections[number]))
        return answers

    with ThreadPoolExecutor(len(connections)) as threads:
        return [list(answers) for answers in zip(*threads.map(lane, range(len(connections))), strict=True)]


def spend(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: authorize(connection, user, cost, generation or new_generation())


def give_back(generation: str) -> Call:
    return lambda connection: refund_generation(connection, generation)


def ledger(connection: psycopg.Connection, kind: str, user: str = ALICE) -> list[int]:
    """The amounts of the user's rows of one type."""
    query = "select amount from public.transactions where type = %s and user_id = %s"
    return [amount for (amount,) in connection.execute(query, [kind, user])]


def assert_sums(owner: psycopg.Connection) -> None:
    """Every balance is the sum of its rows."""
    differing = """
        select from public.users
        where credits_balance <> (select coalesce(sum(amount), 0) from public.transactions where user_id = users.id)
    """
    assert execute(owner, differing) == []


# Many at once


def test_spending_at_once_never_takes_more_than_there_is(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Of 300 generations at once 100 credits pay exactly 100, each balance is told once, and the rest are refused."""
    answers = Counter(told for each in at_once(callers, [[spend(ALICE, 1)]] * ROUNDS) for told in each)
    assert answers == {"CR001": CALLERS * ROUNDS - 100} | dict.fromkeys(range(100), 1)
    assert ledger(owner, "GENERATION") == [-1] * 100
    assert balance(owner, ALICE) == 0


def test_same_generation_authorized_at_once_is_debited_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """All who ask for one generation at the same moment hear the same balance."""
    rounds = [[spend(ALICE, 4, new_generation())] for _ in range(ROUNDS)]
    assert at_once(callers, rounds) == [[100 - 4 * number] * CALLERS for number in range(1, ROUNDS + 1)]
    assert ledger(owner, "GENERATION") == [-4] * ROUNDS


def test_same_generation_of_two_users_at_once_is_debited_to_one(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """One user's calls get the id, the other's are refused, and nobody deadlocks."""
    ids = [new_generation() for _ in range(ROUNDS)]
    for answers in at_once(callers, [[spend(ALICE, 4, id_), spend(BOB, 4, id_)] for id_ in ids]):
        assert Counter(told == "CR002" for told in answers) == {True: CALLERS // 2, False: CALLERS // 2}
        assert len(set(answers[::2])) == len(set(answers[1::2])) == 1
    assert len(ledger(owner, "GENERATION", ALICE) + ledger(owner, "GENERATION", BOB)) == ROUNDS
    assert_sums(owner)


def test_same_generation_refunded_at_once_is_given_back_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """All who give one generation back at the same moment hear the same balance."""
    ids = [new_generation() for _ in range(ROUNDS)]
    for id_ in ids:
        authorize(owner, ALICE, 4, id_)
    assert at_once(callers, [[give_back(id_)] for id_ in ids]) == [
        [4 * number] * CALLERS for number in range(1, ROUNDS + 1)
    ]
    assert ledger(owner, "REFUND") == [4] * ROUNDS


def test_generation_authorized_and_refunded_at_once_is_one_or_the_other(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Whatever comes first, a generation that was given back is never debited again."""
    for id_ in [new_generation() for _ in range(ROUNDS)]:
        [answers] = at_once(callers, [[spend(ALICE, 100, id_), give_back(id_)]])
        assert {*answers[::2]} <= {0, "CR003"}
        assert {*answers[1::2]} <= {100, "CR004"}
        refund_generation(owner, id_)
        assert balance(owner, ALICE) == 100
    assert ledger(owner, "GENERATION") == [-100] * ROUNDS


def test_spending_beside_purchases_and_refunds_of_the_same_users_adds_up(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Deliveries that change both users at once, generations and their refunds never deadlock nor overdraw."""
    random = Random(6)

    def deliver(connection: psycopg.Connection) -> int:
        users, number = random.sample([ALICE, BOB], 2), random.randrange(10**9)
        record(connection, *(sale(f"pi_{number}_{user[0]}", user, credits=3) for user in users))
        record(connection, *(refund(f"re_{number}_{user[0]}", f"pi_{number}_{user[0]}", 334) for user in users[::-1]))
        return 0

    def generate(connection: psycopg.Connection) -> int:
        generation = new_generation()
        told = authorize(connection, random.choice([ALICE, BOB]), random.randint(1, 9), generation)
        assert told >= 0
        return told if random.random() < 0.5 else refund_generation(connection, generation)

    rounds = at_once(callers, [[deliver, generate, generate]] * ROUNDS * 2)
    told = [answer for answers in rounds for answer in answers]
    assert {refusal for refusal in told if isinstance(refusal, str)} <= {"CR001"}
    assert sum(ledger(owner, "PURCHASE", ALICE)) == 100 + 3 * ROUNDS * 2 * CALLERS // 3
    assert_sums(owner)


# One behind the other


def test_authorize_that_waited_for_a_purchase_spends_it(callers: list[psycopg.Connection], waiting: Waiting) -> None:
    """The balance is read after the wait for the user's row, not before."""
    with callers[0].transaction():
        record(callers[0], sale("pi_1", ALICE, credits=50))
        spending = waiting(spend(ALICE, 150), callers[1])
    assert spending.result(PATIENCE) == 0


@pytest.mark.parametrize("committed", [True, False])
def test_authorize_that_waited_for_another_spends_what_that_left(
    callers: list[psycopg.Connection], waiting: Waiting, *, committed: bool
) -> None:
    """Of two generations that the balance covers once, the second goes through only if the first is undone."""
    with callers[0].transaction(force_rollback=not committed):
        authorize(callers[0], ALICE, 60, new_generation())
        spending = waiting(spend(ALICE, 60), callers[1])
    assert spending.result(PATIENCE) == ("CR001" if committed else 40)


@pytest.mark.parametrize("committed", [True, False])
def test_authorize_that_waited_for_its_id_has_it_only_if_it_is_free(
    callers: list[psycopg.Connection],
    owner: psycopg.Connection,
    waiting: Waiting,
    *,
    committed: bool,
) -> None:
    """An id that another user's call is about to take is waited for."""
    generation = new_generation()
    with callers[0].transaction(force_rollback=not committed):
        authorize(callers[0], ALICE, 60, generation)
        spending = waiting(spend(BOB, 60, generation), callers[1])
    assert spending.result(PATIENCE) == (GENERATION_MISMATCH[0] if committed else 40)
    assert_sums(owner)


def test_refund_that_waited_for_the_users_erasure_is_refused(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    """Nothing comes back to somebody who is gone."""
    generation = new_generation()
    authorize(owner, ALICE, 60, generation)
    with owner.transaction():
        # What erase_user() begins with; the rest of it would lock the whole ledger.
        execute(owner, f"select from public.users where id = '{ALICE}' for update")
        refunding = waiting(give_back(generation), callers[0])
        execute(owner, f"select billing.erase_user('{ALICE}')")
    assert refunding.result(PATIENCE) == UNKNOWN_GENERATION[0]


def test_authorize_while_another_users_row_is_locked_goes_on(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Nobody waits for another user's spending."""
    with owner.transaction():
        authorize(owner, ALICE, 60, new_generation())
        assert authorize(callers[0], BOB, 60, new_generation()) == 40


def test_spending_while_the_users_row_is_shared_by_a_foreign_key_goes_on(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """A row that is just being inserted shares its user's row before it wants it: whoever waited would deadlock."""
    generation = new_generation()
    with owner.transaction():
        execute(owner, "select from public.users for key share")
        assert authorize(callers[0], ALICE, 60, generation) == 40
        assert refund_generation(callers[0], generation) == 100


def test_balance_read_while_it_is_spent_does_not_wait(database: Database, owner: psycopg.Connection) -> None:
    """A user's page shows the last committed balance."""
    with owner.transaction():
        authorize(owner, ALICE, 60, new_generation())
        with connected(database, "authenticated", user=ALICE) as page:
            assert execute(page, "select credits_balance from public.users") == [(100,)]


def test_refused_authorize_leaves_no_lock(callers: list[psycopg.Connection]) -> None:
    """A refusal lets the user's row go at once, though the caller's transaction goes on."""
    with callers[0].transaction():
        with refused(INSUFFICIENT_CREDITS), callers[0].transaction():
            authorize(callers[0], ALICE, 101, new_generation())
        assert authorize(callers[1], ALICE, 100, new_generation()) == 0
