"""Holds under load: parallel reservations, captures and releases, waits for locks, and old snapshots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from support.calls import CALLERS, Call, Waiting, run_rounds
from support.databases import Database
from support.generations import (
    GENERATION_MISMATCH,
    INSUFFICIENT_CREDITS,
    UNKNOWN_GENERATION,
    UNKNOWN_USER,
    authorize,
    available,
    capture,
    expire,
    holds,
    new_generation,
    refund_generation,
    release,
    reserve,
)
from support.ledger_queries import new_user, wrong_balances
from support.roles import ALICE, BOB, add, balance, connected, execute, record, refund, sale, sign_up
from support.waiting import WAIT_TIMEOUT

ROUNDS = 25
CROWD = 50
LOCK = f"select from public.users where id = '{ALICE}' for no key update"
Making = Callable[..., Call]
Ending = Callable[[psycopg.Connection, str], int]
ISOLATED = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice and Bob have 100 credits each."""
    sign_up(admin, ALICE, BOB)
    add(admin, ALICE, 100)
    add(admin, BOB, 100)
    return admin


@pytest.fixture
def crowd(database: Database, owner: psycopg.Connection) -> Iterator[list[psycopg.Connection]]:
    """Fifty connections as service_role that wait for a lock as long as it takes."""
    assert owner
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(database, "service_role")) for _ in range(CROWD)]
        for connection in connections:
            connection.execute("set statement_timeout = 0")
        yield connections


def reserving(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: reserve(connection, user, cost, generation or new_generation())


def capturing(generation: str, cost: int | None = None) -> Call:
    return lambda connection: capture(connection, generation, cost)


def releasing(generation: str) -> Call:
    return lambda connection: release(connection, generation)


def spending(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: authorize(connection, user, cost, generation or new_generation())


# Concurrent calls


def test_200_reservations_at_once_hold_exactly_what_fits(
    crowd: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """100 credits cover 33 holds of 3 credits; each success returns another number of available credits."""
    results = Counter(result for each in run_rounds(crowd, [[reserving(ALICE, 3)]] * 4) for result in each)
    assert results == {"CR001": 200 - 33} | dict.fromkeys(range(1, 100, 3), 1)
    assert (available(owner, ALICE), len(holds(owner))) == (1, 33)


def test_concurrent_reserve_and_authorize_share_the_credits(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    results = run_rounds(callers, [[reserving(ALICE, 1), spending(ALICE, 1)]] * ROUNDS)
    successes = [result for each in results for result in each if result != "CR001"]
    assert len(successes) == 100
    assert available(owner, ALICE) == 0
    assert len(holds(owner)) == balance(owner, ALICE)


def test_concurrent_reserve_of_one_generation_holds_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """All callers receive the same number."""
    rounds = [[reserving(ALICE, 4, new_generation())] for _ in range(ROUNDS)]
    assert run_rounds(callers, rounds) == [[100 - 4 * number] * CALLERS for number in range(1, ROUNDS + 1)]
    assert len(holds(owner)) == ROUNDS


def test_concurrent_capture_of_one_hold_debits_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    ids = [new_generation() for _ in range(ROUNDS)]
    for id_ in ids:
        reserve(owner, ALICE, 4, id_)
    rounds = run_rounds(callers, [[capturing(id_, 3)] for id_ in ids])
    assert rounds == [[100 - 3 * number] * CALLERS for number in range(1, ROUNDS + 1)]
    assert available(owner, ALICE) == 100 - 3 * ROUNDS


@pytest.mark.parametrize("expired", [False, True])
def test_exactly_one_of_capture_and_release_wins(
    callers: list[psycopg.Connection], owner: psycopg.Connection, *, expired: bool
) -> None:
    """All calls agree who won, also for a hold that has expired."""
    captured = 0
    for id_ in [new_generation() for _ in range(ROUNDS)]:
        reserve(owner, ALICE, 4, id_)
        if expired:
            expire(owner, id_)
        [results] = run_rounds(callers, [[capturing(id_), releasing(id_)]])
        has_captured = "CR003" not in results
        captured += has_captured
        rest = 100 - 4 * captured
        assert {*results[::2]} == {rest if has_captured else "CR003"}
        assert {*results[1::2]} == {"CR008" if has_captured else rest}
    assert (balance(owner, ALICE), available(owner, ALICE)) == (rest, rest)


@pytest.mark.parametrize("other", [reserving, spending])
def test_one_id_of_two_users_is_taken_once(
    callers: list[psycopg.Connection], owner: psycopg.Connection, other: Making
) -> None:
    """One user's calls succeed, the other's are refused, and no call deadlocks."""
    ids = [new_generation() for _ in range(ROUNDS)]
    for results in run_rounds(callers, [[reserving(ALICE, 4, id_), other(BOB, 4, id_)] for id_ in ids]):
        assert Counter(result == "CR002" for result in results) == {True: CALLERS // 2, False: CALLERS // 2}
        assert len(set(results[::2])) == len(set(results[1::2])) == 1
    assert available(owner, ALICE) + available(owner, BOB) == 200 - 4 * ROUNDS


def test_holds_purchases_refunds_and_erasure_do_not_deadlock(
    crowd: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """Fifty connections change two users and erase others, who reserve at the same moment."""
    random = Random(14)
    victims = [new_user(owner) for _ in range(ROUNDS)]
    for victim in victims:
        add(owner, victim, 10)

    def deliver(connection: psycopg.Connection) -> int:
        users, number = random.sample([ALICE, BOB], 2), random.randrange(10**9)
        record(connection, *(sale(f"pi_{number}_{user[0]}", user, credits=3) for user in users))
        record(connection, *(refund(f"re_{number}_{user[0]}", f"pi_{number}_{user[0]}", 334) for user in users[::-1]))
        return 0

    def generate(connection: psycopg.Connection) -> int:
        generation = new_generation()
        assert reserve(connection, random.choice([ALICE, BOB]), random.randint(1, 9), generation) >= 0
        end = random.choice([capture, release, expire, lambda *_: authorize(connection, ALICE, 1, new_generation())])
        end(connection, generation)
        return refund_generation(connection, generation) if end is capture and random.random() < 0.5 else 0

    def reserve_for(victim: str) -> Call:
        return lambda connection: capture(connection, reserved(connection, victim))

    def reserved(connection: psycopg.Connection, victim: str) -> str:
        generation = new_generation()
        reserve(connection, victim, 1, generation)
        return generation

    def erase(victim: str) -> Call:
        def call(_: psycopg.Connection) -> int:
            owner.execute("select billing.erase_user(%s)", [victim])
            return 0

        return call

    rounds = [[deliver, generate, generate, generate, reserve_for(victim)] * 9 + [erase(victim)] for victim in victims]
    results = [result for each in run_rounds(crowd, rounds) for result in each]
    refusals = {refusal for refusal in results if isinstance(refusal, str)}
    assert refusals <= {INSUFFICIENT_CREDITS[0], UNKNOWN_USER[0], UNKNOWN_GENERATION[0]}
    assert wrong_balances(owner) == []
    assert {user for _, user, *_ in holds(owner)} == {ALICE, BOB}


# Waiting for locks


def test_capture_that_waited_past_the_expiry_is_a_new_debit(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    """It began before the expiry. Meanwhile, another generation spent the credits, so it would overdraw the balance."""
    generation = new_generation()
    reserve(owner, ALICE, 60, generation)
    with owner.transaction():
        owner.execute(LOCK)
        late = waiting(capturing(generation), callers[0])
        expire(owner, generation)
        authorize(owner, ALICE, 50, new_generation())
    assert late.result(WAIT_TIMEOUT) == INSUFFICIENT_CREDITS[0]
    assert balance(owner, ALICE) == 50


@pytest.mark.parametrize("call", [spending, reserving])
def test_call_that_waited_past_an_expiry_may_spend_it(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting, call: Making
) -> None:
    """The hold was open when the call began."""
    generation = new_generation()
    reserve(owner, ALICE, 60, generation)
    with owner.transaction():
        owner.execute(LOCK)
        late = waiting(call(ALICE, 100), callers[0])
        expire(owner, generation)
    assert late.result(WAIT_TIMEOUT) == 0


def test_release_that_waited_past_an_expiry_does_not_count_it(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    expiring, ending = new_generation(), new_generation()
    reserve(owner, ALICE, 60, expiring)
    reserve(owner, ALICE, 30, ending)
    with owner.transaction():
        owner.execute(LOCK)
        late = waiting(releasing(ending), callers[0])
        expire(owner, expiring)
    assert late.result(WAIT_TIMEOUT) == 100


def test_reserve_that_waited_expires_after_its_full_time(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    """The time of the hold begins when it is made, not when the call began."""
    with owner.transaction():
        owner.execute(LOCK)
        late = waiting(reserving(ALICE, 1), callers[0])
        [(unlocked,)] = execute(owner, "select clock_timestamp()")
    assert late.result(WAIT_TIMEOUT) == 99
    [(expiry,)] = execute(owner, "select expires_at - interval '1 hour' from public.generation_holds")
    assert expiry >= unlocked


@pytest.mark.parametrize("committed", [True, False])
def test_reserve_after_waiting_for_another_holds_the_rest(
    callers: list[psycopg.Connection], waiting: Waiting, *, committed: bool
) -> None:
    """The balance covers one of two holds: the second succeeds only if the first rolls back."""
    with callers[0].transaction(force_rollback=not committed):
        reserve(callers[0], ALICE, 60, new_generation())
        second = waiting(reserving(ALICE, 60), callers[1])
    assert second.result(WAIT_TIMEOUT) == ("CR001" if committed else 40)


@pytest.mark.parametrize("call", [reserving, spending])
@pytest.mark.parametrize("committed", [True, False])
def test_call_waits_for_another_users_uncommitted_hold(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting, call: Making, *, committed: bool
) -> None:
    """Two users' calls with one id: the later one succeeds only if the first rolls back."""
    generation = new_generation()
    with callers[0].transaction(force_rollback=not committed):
        reserve(callers[0], ALICE, 60, generation)
        later = waiting(call(BOB, 60, generation), callers[1])
    assert later.result(WAIT_TIMEOUT) == (GENERATION_MISMATCH[0] if committed else 40)
    assert available(owner, BOB) == (100 if committed else 40)


def test_capture_after_waiting_for_a_refund_makes_a_debt(
    callers: list[psycopg.Connection], owner: psycopg.Connection, waiting: Waiting
) -> None:
    """The hold is open, so its capture succeeds."""
    generation = new_generation()
    reserve(owner, ALICE, 60, generation)
    with owner.transaction():
        add(owner, ALICE, -80, type="REFUND")
        later = waiting(capturing(generation), callers[0])
    assert later.result(WAIT_TIMEOUT) == -40


@pytest.mark.parametrize(
    ("call", "refusal"), [(capturing, UNKNOWN_GENERATION), (releasing, UNKNOWN_GENERATION), (None, UNKNOWN_USER)]
)
def test_call_after_waiting_for_an_erase_is_refused(
    callers: list[psycopg.Connection],
    owner: psycopg.Connection,
    waiting: Waiting,
    call: Making | None,
    refusal: tuple[str, str],
) -> None:
    """The third call is a reservation."""
    generation = new_generation()
    reserve(owner, ALICE, 60, generation)
    with owner.transaction():
        # The first step of erase_user(). Its other steps would lock the whole ledger.
        owner.execute(f"select from public.users where id = '{ALICE}' for update")
        later = waiting(call(generation) if call else reserving(ALICE, 1), callers[0])
        owner.execute("select billing.erase_user(%s)", [ALICE])
    assert later.result(WAIT_TIMEOUT) == refusal[0]
    assert holds(owner) == []


def test_holds_do_not_wait_for_a_foreign_key_lock(callers: list[psycopg.Connection], owner: psycopg.Connection) -> None:
    """Every insert into the ledger takes this lock on its user."""
    first, second = new_generation(), new_generation()
    with owner.transaction():
        owner.execute("select from public.users for key share")
        assert reserve(callers[0], ALICE, 60, first) == 40
        assert reserve(callers[0], ALICE, 40, second) == 0
        assert capture(callers[0], first) == 40
        assert release(callers[0], second) == 40


def test_reserve_does_not_wait_for_another_users_row(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    with owner.transaction():
        reserve(owner, ALICE, 60, new_generation())
        assert reserve(callers[0], BOB, 60, new_generation()) == 40


def test_available_credits_are_read_without_waiting(
    callers: list[psycopg.Connection], owner: psycopg.Connection
) -> None:
    """The function returns what is committed."""
    with owner.transaction():
        reserve(owner, ALICE, 60, new_generation())
        assert available(callers[0], ALICE) == 100


# Isolation levels


@pytest.mark.parametrize("level", ISOLATED)
@pytest.mark.parametrize("call", [spending, reserving])
def test_call_with_a_snapshot_before_a_hold_fails_to_serialize(
    database: Database, owner: psycopg.Connection, call: Making, level: IsolationLevel
) -> None:
    """The snapshot does not show the hold, so the call would spend the same credits."""
    with psycopg.connect(database.admin_url) as old:
        old.isolation_level = level
        assert balance(old, ALICE) == 100
        reserve(owner, ALICE, 60, new_generation())
        with pytest.raises(errors.SerializationFailure):
            call(ALICE, 60)(old)
    assert available(owner, ALICE) == 40


@pytest.mark.parametrize("level", ISOLATED)
@pytest.mark.parametrize(("first", "second"), [(release, capture), (capture, release)])
def test_second_end_with_an_old_snapshot_fails_to_serialize(
    database: Database, owner: psycopg.Connection, first: Ending, second: Ending, level: IsolationLevel
) -> None:
    """The snapshot shows the hold as open, though it has ended."""
    generation = new_generation()
    reserve(owner, ALICE, 60, generation)
    with psycopg.connect(database.admin_url) as old:
        old.isolation_level = level
        assert balance(old, ALICE) == 100
        rest = first(owner, generation)
        with pytest.raises(errors.SerializationFailure):
            second(old, generation)
    assert balance(owner, ALICE) == available(owner, ALICE) == rest
