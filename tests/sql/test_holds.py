"""reserve_generation(): return values, errors and holds."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from support.generations import (
    GENERATION_MISMATCH,
    GENERATION_REFUNDED,
    GENERATION_RELEASED,
    INSUFFICIENT_CREDITS,
    INVALID_COST,
    INVALID_EXPIRY,
    UNKNOWN_GENERATION,
    UNKNOWN_USER,
    authorize,
    available,
    capture,
    debits,
    expire,
    hold,
    holds,
    new_generation,
    refund_generation,
    refused,
    release,
    reserve,
)
from support.roles import ALICE, BOB, CAROL, add, balance, contents, execute

FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
HIGHEST = 2**53 - 1


# Reservation


def test_reserve_returns_what_is_left_and_keeps_the_balance(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    assert reserve(generator, ALICE, 60, FIRST) == 40
    assert (balance(owner, ALICE), available(generator, ALICE)) == (100, 40)
    assert holds(owner) == [(FIRST, ALICE, 60, "open")]
    assert debits(owner) == []


def test_reserve_of_all_credits_leaves_none(generator: psycopg.Connection) -> None:
    assert reserve(generator, ALICE, 100, FIRST) == 0


def test_reserve_keeps_other_users_credits(generator: psycopg.Connection) -> None:
    reserve(generator, ALICE, 60, FIRST)
    assert available(generator, BOB) == 50


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("cost", [101, HIGHEST, HIGHEST + 1, 2**63 - 1])
def test_reserve_of_more_than_the_balance_is_refused(generator: psycopg.Connection, cost: int) -> None:
    """The largest bigint does not overflow."""
    with refused(INSUFFICIENT_CREDITS):
        reserve(generator, ALICE, cost, FIRST)


@pytest.mark.parametrize("call", [reserve, authorize])
def test_held_credits_cannot_be_spent_twice(
    generator: psycopg.Connection, owner: psycopg.Connection, call: Callable[..., int]
) -> None:
    reserve(generator, ALICE, 60, FIRST)
    before = contents(owner)
    with refused(INSUFFICIENT_CREDITS):
        call(generator, ALICE, 41, SECOND)
    assert contents(owner) == before
    call(generator, ALICE, 40, SECOND)
    assert available(generator, ALICE) == 0


def test_authorize_beside_a_hold_returns_the_balance(generator: psycopg.Connection) -> None:
    """It returns the balance, not the available credits."""
    reserve(generator, ALICE, 60, FIRST)
    assert authorize(generator, ALICE, 30, SECOND) == 70


def test_reserve_after_a_purchase_uses_it(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A refusal does not use up the id."""
    with refused(INSUFFICIENT_CREDITS):
        reserve(generator, ALICE, 101, FIRST)
    add(owner, ALICE, 1)
    assert reserve(generator, ALICE, 101, FIRST) == 0


def test_reserve_in_debt_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    add(owner, ALICE, -120, type="REFUND")
    with refused(INSUFFICIENT_CREDITS):
        reserve(generator, ALICE, 1, FIRST)


def test_reserve_retry_holds_nothing_more(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """It returns the current available credits, also if they would not cover the cost again."""
    reserve(generator, ALICE, 60, FIRST)
    add(owner, ALICE, 5)
    assert reserve(generator, ALICE, 60, FIRST) == 45
    assert holds(owner) == [(FIRST, ALICE, 60, "open")]


def test_reserve_retry_does_not_extend_an_open_hold(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    reserve(generator, ALICE, 60, FIRST, "1 hour")
    before = contents(owner)
    assert reserve(generator, ALICE, 60, FIRST, "7 days") == 40
    assert contents(owner) == before


def test_reserve_retry_after_the_capture_returns_available(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """A call whose answer was lost may come after its own capture."""
    reserve(generator, ALICE, 60, FIRST)
    capture(generator, FIRST, 45)
    before = contents(owner)
    assert reserve(generator, ALICE, 60, FIRST) == 55
    assert contents(owner) == before


@pytest.mark.parametrize("state", ["open", "expired", "captured", "released"])
@pytest.mark.parametrize(("user", "cost"), [(ALICE, 31), (ALICE, 29), (BOB, 30)])
def test_reserve_retry_with_another_cost_or_user_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, user: str, cost: int, state: str
) -> None:
    hold(generator, FIRST, state)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        reserve(generator, user, cost, FIRST)
    assert contents(owner) == before


def test_reserve_after_the_release_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    hold(generator, FIRST, "released")
    before = contents(owner)
    with refused(GENERATION_RELEASED):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


def test_reserve_after_the_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Otherwise a refunded generation could run again for free."""
    hold(generator, FIRST, "captured")
    refund_generation(generator, FIRST)
    before = contents(owner)
    with refused(GENERATION_REFUNDED):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


@pytest.mark.parametrize(("kind", "amount"), [("GENERATION", -30), ("PURCHASE", 30), ("REFUND", 30)])
def test_reserve_with_the_id_of_a_ledger_row_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, kind: str, amount: int
) -> None:
    """A generation that was authorised directly cannot be reserved, too."""
    add(owner, ALICE, amount, type=kind, id=FIRST)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


@pytest.mark.parametrize("state", ["open", "expired", "captured", "released"])
def test_authorize_with_the_id_of_a_hold_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, state: str
) -> None:
    hold(generator, FIRST, state)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        authorize(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("cost", [0, -1, -(2**63), None])
def test_reserve_without_a_positive_cost_is_refused(generator: psycopg.Connection, cost: int | None) -> None:
    with refused(INVALID_COST):
        reserve(generator, ALICE, cost, FIRST)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("user", [CAROL, None])
def test_reserve_for_an_unknown_user_is_refused(generator: psycopg.Connection, user: str | None) -> None:
    with refused(UNKNOWN_USER):
        reserve(generator, user, 1, FIRST)


@pytest.mark.usefixtures("unchanged")
def test_reserve_without_an_id_is_refused(generator: psycopg.Connection) -> None:
    with refused(UNKNOWN_GENERATION):
        reserve(generator, ALICE, 1, None)


# Time until the expiry


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "expires_in", [None, "0", "-1 second", "-8 days", "7 days 1 microsecond", "1 month", "1 year -358 days"]
)
def test_reserve_with_an_invalid_expiry_is_refused(generator: psycopg.Connection, expires_in: str | None) -> None:
    """The last one is less than 7 days if a year is 360 days long."""
    with refused(INVALID_EXPIRY):
        reserve(generator, ALICE, 1, FIRST, expires_in)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("expires_in", ["infinity", "-infinity"])
def test_reserve_with_an_infinite_expiry_is_refused(generator: psycopg.Connection, expires_in: str) -> None:
    """Before Postgres 17, an interval cannot be infinite."""
    if generator.info.server_version < 170000:
        pytest.skip("an interval cannot be infinite")
    with refused(INVALID_EXPIRY):
        reserve(generator, ALICE, 1, FIRST, expires_in)


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [("7 days", 604800), ("1 week", 604800), ("1 month -29 days", 86400), ("90 minutes", 5400), ("1 second", 1)],
)
def test_hold_expires_after_exactly_the_given_time(
    generator: psycopg.Connection, owner: psycopg.Connection, expires_in: str, seconds: int
) -> None:
    """Neither the month nor a change of the clocks makes it shorter or longer."""
    generator.execute("set timezone = 'Europe/Berlin'")
    [(before,)] = execute(owner, "select extract(epoch from clock_timestamp())")
    reserve(generator, ALICE, 30, FIRST, expires_in)
    [(expiry, after)] = execute(
        owner,
        "select extract(epoch from expires_at), extract(epoch from clock_timestamp()) from public.generation_holds",
    )
    assert before + seconds <= expiry <= after + seconds


def test_hold_without_a_given_time_expires_after_an_hour(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    with generator.transaction():
        generator.execute("select public.reserve_generation(%s, 30, %s)", [ALICE, FIRST])
        [(left,)] = execute(generator, "select expires_at - now() from public.generation_holds")
    assert 3600 <= left.total_seconds() < 3660
    assert holds(owner) == [(FIRST, ALICE, 30, "open")]


# Long histories


def test_calls_read_few_rows_of_ten_thousand_past_holds(owner: psycopg.Connection) -> None:
    """A third each was captured, released or has expired. The plans were made for a short table."""
    owner.prepare_threshold = None  # only the functions keep their plans

    def call_all() -> None:
        first, second = new_generation(), new_generation()
        reserve(owner, ALICE, 2, first)
        expire(owner, first)
        reserve(owner, ALICE, 2, second)
        authorize(owner, ALICE, 1, new_generation())
        capture(owner, first, 1)
        release(owner, second)
        available(owner, ALICE)

    def rows_read() -> int:
        query = """
            select sum(seq_tup_read + idx_tup_fetch)::integer
            from pg_stat_xact_user_tables
            where relname = 'generation_holds'
        """
        return owner.execute(query).fetchone()[0]

    for _ in range(2):
        owner.execute("analyze public.generation_holds")
        for _ in range(8):  # from the sixth call on, Postgres may keep a generic plan
            call_all()
    owner.execute(
        """
        insert into public.generation_holds (id, user_id, amount, expires_at, captured_at, released_at)
        select
            gen_random_uuid(),
            %s,
            1,
            now() - number * interval '1 minute',
            case number %% 3 when 1 then now() end,
            case number %% 3 when 2 then now() end
        from generate_series(1, 10000) as number
        """,
        [ALICE],
    )
    with owner.transaction():
        before = rows_read()  # it may include statements from before the transaction
        call_all()
        assert rows_read() - before < 50
