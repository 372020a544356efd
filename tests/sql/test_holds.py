"""reserve_generation(), capture_generation() and release_generation(): return values, errors, holds and ledger rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.generations import (
    COST_ABOVE_HOLD,
    GENERATION_CAPTURED,
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
    expire,
    refund_generation,
    refused,
    release,
    reserve,
)
from support.roles import ALICE, BOB, CAROL, add, balance, connected, contents, execute

FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
HIGHEST = 2**53 - 1


@pytest.fixture
def generator(database: Database, owner: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The video generator's connection, as service_role. Alice has 100 credits and Bob 50."""
    assert owner
    with connected(database, "service_role") as connection:
        yield connection


@pytest.fixture
def unchanged(owner: psycopg.Connection) -> Iterator[None]:
    """Check that the test leaves the database unchanged."""
    before = contents(owner)
    yield
    assert contents(owner) == before


def holds(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return id, user, amount and state of each hold, ordered by id."""
    return connection.execute(
        """
        select
            id::text,
            user_id::text,
            amount,
            case
                when captured_at is not null then 'captured'
                when released_at is not null then 'released'
                when expires_at > clock_timestamp() then 'open'
                else 'expired'
            end
        from public.generation_holds
        order by id
        """
    ).fetchall()


def debits(connection: psycopg.Connection) -> list[tuple[str, str, int]]:
    """Return id, user and amount of each GENERATION row."""
    query = "select id::text, user_id::text, amount from public.transactions where type = 'GENERATION' order by id"
    return connection.execute(query).fetchall()


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
    end_hold(generator, state)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        reserve(generator, user, cost, FIRST)
    assert contents(owner) == before


def end_hold(generator: psycopg.Connection, state: str) -> None:
    """Reserve 30 of Alice's credits and bring the hold into this state."""
    reserve(generator, ALICE, 30, FIRST)
    if state != "open":
        {"expired": expire, "captured": capture, "released": release}[state](generator, FIRST)


def test_reserve_after_the_release_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "released")
    before = contents(owner)
    with refused(GENERATION_RELEASED):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


def test_reserve_after_the_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Otherwise a refunded generation could run again for free."""
    end_hold(generator, "captured")
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
    end_hold(generator, state)
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


# Expired holds


def test_expired_hold_no_longer_counts(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Nothing ends it, and every path sees it."""
    reserve(generator, ALICE, 60, FIRST)
    expire(generator, FIRST)
    assert available(generator, ALICE) == 100
    assert authorize(generator, ALICE, 50, SECOND) == 50
    assert holds(owner) == [(FIRST, ALICE, 60, "expired")]


def test_reserve_of_an_expired_hold_holds_it_again(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "expired")
    assert reserve(generator, ALICE, 30, FIRST) == 70
    assert holds(owner) == [(FIRST, ALICE, 30, "open")]


def test_reserve_of_an_uncovered_expired_hold_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    end_hold(generator, "expired")
    reserve(generator, ALICE, 71, SECOND)
    before = contents(owner)
    with refused(INSUFFICIENT_CREDITS):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


def test_late_capture_is_a_new_debit(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "expired")
    reserve(generator, ALICE, 70, SECOND)
    assert capture(generator, FIRST) == 70
    assert available(generator, ALICE) == 0
    assert debits(owner) == [(FIRST, ALICE, -30)]


def test_late_capture_without_cover_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A smaller cost that is covered succeeds, and so does the same call after a purchase."""
    end_hold(generator, "expired")
    reserve(generator, ALICE, 71, SECOND)
    before = contents(owner)
    with refused(INSUFFICIENT_CREDITS):
        capture(generator, FIRST)
    assert contents(owner) == before
    add(owner, ALICE, 1)
    assert capture(generator, FIRST) == 71


def test_late_capture_for_what_is_left_succeeds(generator: psycopg.Connection) -> None:
    end_hold(generator, "expired")
    reserve(generator, ALICE, 71, SECOND)
    assert capture(generator, FIRST, 29) == 71
    assert available(generator, ALICE) == 0


def test_release_of_an_expired_hold_ends_it(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Its job can no longer be captured."""
    end_hold(generator, "expired")
    assert release(generator, FIRST) == 100
    assert holds(owner) == [(FIRST, ALICE, 30, "released")]
    with refused(GENERATION_RELEASED):
        capture(generator, FIRST)


# Capture


def test_capture_debits_the_whole_hold(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    reserve(generator, ALICE, 60, FIRST)
    assert capture(generator, FIRST) == 40
    assert (balance(owner, ALICE), available(generator, ALICE)) == (40, 40)
    assert holds(owner) == [(FIRST, ALICE, 60, "captured")]
    assert debits(owner) == [(FIRST, ALICE, -60)]


def test_capture_of_less_gives_the_rest_back(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    reserve(generator, ALICE, 60, FIRST)
    assert capture(generator, FIRST, 45) == 55
    assert available(generator, ALICE) == 55
    assert debits(owner) == [(FIRST, ALICE, -45)]


@pytest.mark.parametrize("state", ["open", "expired", "captured", "released"])
@pytest.mark.parametrize("cost", [31, HIGHEST, 2**63 - 1])
def test_capture_of_more_than_the_hold_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, cost: int, state: str
) -> None:
    """The credits would cover it, but the user was not asked for more."""
    end_hold(generator, state)
    before = contents(owner)
    with refused(COST_ABOVE_HOLD):
        capture(generator, FIRST, cost)
    assert contents(owner) == before


def test_capture_of_an_open_hold_may_make_a_debt(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A refund took the credits back while the job ran."""
    reserve(generator, ALICE, 60, FIRST)
    add(owner, ALICE, -80, type="REFUND")
    assert available(generator, ALICE) == -40
    assert capture(generator, FIRST) == -40
    assert balance(owner, ALICE) == -40


def test_late_capture_never_makes_a_debt(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "expired")
    add(owner, ALICE, -71, type="REFUND")
    with refused(INSUFFICIENT_CREDITS):
        capture(generator, FIRST)
    assert capture(generator, FIRST, 29) == 0


def test_capture_retry_debits_nothing(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """It returns the current balance, also after the time of the hold."""
    reserve(generator, ALICE, 60, FIRST)
    capture(generator, FIRST)
    add(owner, ALICE, 5)
    before = contents(owner)
    assert [capture(generator, FIRST), capture(generator, FIRST, 60)] == [45, 45]
    assert contents(owner) == before


@pytest.mark.parametrize(("first", "second"), [(20, 21), (20, None), (None, 29)])
def test_capture_retry_with_another_cost_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, first: int | None, second: int | None
) -> None:
    """Without a cost, the call means the whole hold."""
    reserve(generator, ALICE, 30, FIRST)
    capture(generator, FIRST, first)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        capture(generator, FIRST, second)
    assert contents(owner) == before


def test_capture_after_the_release_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "released")
    before = contents(owner)
    with refused(GENERATION_RELEASED):
        capture(generator, FIRST)
    assert contents(owner) == before


def test_capture_after_the_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    end_hold(generator, "captured")
    refund_generation(generator, FIRST)
    before = contents(owner)
    with refused(GENERATION_REFUNDED):
        capture(generator, FIRST)
    assert contents(owner) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("cost", [0, -1, -(2**63)])
def test_capture_without_a_positive_cost_is_refused(generator: psycopg.Connection, cost: int) -> None:
    with refused(INVALID_COST):
        capture(generator, FIRST, cost)


def test_capture_of_an_id_of_another_ledger_row_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """Such a row can only be written without the functions."""
    reserve(generator, ALICE, 30, FIRST)
    add(generator, ALICE, -30, type="GENERATION", id=FIRST)
    before = contents(owner)
    with refused(GENERATION_MISMATCH):
        capture(generator, FIRST)
    assert contents(owner) == before


# Release


def test_release_makes_the_credits_available_again(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    reserve(generator, ALICE, 60, FIRST)
    assert release(generator, FIRST) == 100
    assert holds(owner) == [(FIRST, ALICE, 60, "released")]
    assert balance(owner, ALICE) == 100


def test_release_retry_changes_nothing(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """It returns the current available credits."""
    reserve(generator, ALICE, 60, FIRST)
    release(generator, FIRST)
    reserve(generator, ALICE, 10, SECOND)
    before = contents(owner)
    assert [release(generator, FIRST) for _ in range(2)] == [90, 90]
    assert contents(owner) == before


@pytest.mark.parametrize("refunded", [False, True])
def test_release_after_the_capture_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, *, refunded: bool
) -> None:
    end_hold(generator, "captured")
    if refunded:
        refund_generation(generator, FIRST)
    before = contents(owner)
    with refused(GENERATION_CAPTURED):
        release(generator, FIRST)
    assert contents(owner) == before


# Other ids


@pytest.mark.parametrize("call", [capture, release])
@pytest.mark.parametrize("generation", [FIRST, SECOND, None])
def test_call_for_an_id_without_a_hold_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, call: Callable[..., int], generation: str | None
) -> None:
    """The first one was authorised directly, the second is unknown."""
    authorize(generator, ALICE, 30, FIRST)
    before = contents(owner)
    with refused(UNKNOWN_GENERATION):
        call(generator, generation)
    assert contents(owner) == before


@pytest.mark.parametrize("state", ["open", "expired", "released"])
def test_refund_of_a_hold_that_was_not_captured_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection, state: str
) -> None:
    end_hold(generator, state)
    before = contents(owner)
    with refused(UNKNOWN_GENERATION):
        refund_generation(generator, FIRST)
    assert contents(owner) == before


def test_refund_of_a_captured_hold_gives_its_cost_back(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """It gives back what was captured, not what was held."""
    reserve(generator, ALICE, 60, FIRST)
    capture(generator, FIRST, 45)
    assert [refund_generation(generator, FIRST) for _ in range(2)] == [100, 100]
    assert balance(owner, ALICE) == 100


def test_available_credits_of_an_unknown_user_are_null(generator: psycopg.Connection) -> None:
    assert available(generator, CAROL) is None


# Erased users


@pytest.mark.parametrize("state", ["open", "expired", "captured", "released"])
def test_erase_user_deletes_the_users_holds(
    generator: psycopg.Connection, owner: psycopg.Connection, state: str
) -> None:
    end_hold(generator, state)
    reserve(generator, BOB, 10, SECOND)
    owner.execute("select billing.erase_user(%s)", [ALICE])
    assert holds(owner) == [(SECOND, BOB, 10, "open")]
    for call in (capture, release):
        with refused(UNKNOWN_GENERATION):
            call(generator, FIRST)
