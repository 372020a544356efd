"""Calls of holds that wait for a lock, while a hold expires or ends, and calls with an old snapshot."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from support.calls import Making, Waiting, capturing, releasing, reserving, spending
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
    release,
    reserve,
)
from support.roles import ALICE, BOB, add, balance, execute, sign_up
from support.waiting import WAIT_TIMEOUT

LOCK = f"select from public.users where id = '{ALICE}' for no key update"
Ending = Callable[[psycopg.Connection, str], int]
ISOLATED = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice and Bob have 100 credits each."""
    sign_up(admin, ALICE, BOB)
    add(admin, ALICE, 100)
    add(admin, BOB, 100)
    return admin


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
