"""Holds under load: parallel reservations, captures and releases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import psycopg
import pytest

from support.calls import CALLERS, Call, Making, capturing, releasing, reserving, run_rounds, spending
from support.databases import Database
from support.generations import (
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
from support.roles import ALICE, BOB, add, balance, connected, record, refund, sale, sign_up

ROUNDS = 25
CROWD = 50


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
