"""How a hold ends: by its expiry, capture_generation(), release_generation() or the erasure of its user."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from support.generations import (
    COST_ABOVE_HOLD,
    GENERATION_CAPTURED,
    GENERATION_MISMATCH,
    GENERATION_REFUNDED,
    GENERATION_RELEASED,
    INSUFFICIENT_CREDITS,
    INVALID_COST,
    UNKNOWN_GENERATION,
    authorize,
    available,
    capture,
    debits,
    expire,
    hold,
    holds,
    refund_generation,
    refused,
    release,
    reserve,
)
from support.roles import ALICE, BOB, CAROL, add, balance, contents

FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
HIGHEST = 2**53 - 1


# Expired holds


def test_expired_hold_no_longer_counts(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Nothing ends it, and every path sees it."""
    reserve(generator, ALICE, 60, FIRST)
    expire(generator, FIRST)
    assert available(generator, ALICE) == 100
    assert authorize(generator, ALICE, 50, SECOND) == 50
    assert holds(owner) == [(FIRST, ALICE, 60, "expired")]


def test_reserve_of_an_expired_hold_holds_it_again(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    hold(generator, FIRST, "expired")
    assert reserve(generator, ALICE, 30, FIRST) == 70
    assert holds(owner) == [(FIRST, ALICE, 30, "open")]


def test_reserve_of_an_uncovered_expired_hold_is_refused(
    generator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    hold(generator, FIRST, "expired")
    reserve(generator, ALICE, 71, SECOND)
    before = contents(owner)
    with refused(INSUFFICIENT_CREDITS):
        reserve(generator, ALICE, 30, FIRST)
    assert contents(owner) == before


def test_late_capture_is_a_new_debit(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    hold(generator, FIRST, "expired")
    reserve(generator, ALICE, 70, SECOND)
    assert capture(generator, FIRST) == 70
    assert available(generator, ALICE) == 0
    assert debits(owner) == [(FIRST, ALICE, -30)]


def test_late_capture_without_cover_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A smaller cost that is covered succeeds, and so does the same call after a purchase."""
    hold(generator, FIRST, "expired")
    reserve(generator, ALICE, 71, SECOND)
    before = contents(owner)
    with refused(INSUFFICIENT_CREDITS):
        capture(generator, FIRST)
    assert contents(owner) == before
    add(owner, ALICE, 1)
    assert capture(generator, FIRST) == 71


def test_late_capture_for_what_is_left_succeeds(generator: psycopg.Connection) -> None:
    hold(generator, FIRST, "expired")
    reserve(generator, ALICE, 71, SECOND)
    assert capture(generator, FIRST, 29) == 71
    assert available(generator, ALICE) == 0


def test_release_of_an_expired_hold_ends_it(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Its job can no longer be captured."""
    hold(generator, FIRST, "expired")
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
    hold(generator, FIRST, state)
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
    hold(generator, FIRST, "expired")
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
    hold(generator, FIRST, "released")
    before = contents(owner)
    with refused(GENERATION_RELEASED):
        capture(generator, FIRST)
    assert contents(owner) == before


def test_capture_after_the_refund_is_refused(generator: psycopg.Connection, owner: psycopg.Connection) -> None:
    hold(generator, FIRST, "captured")
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
    hold(generator, FIRST, "captured")
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
    hold(generator, FIRST, state)
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
    hold(generator, FIRST, state)
    reserve(generator, BOB, 10, SECOND)
    owner.execute("select billing.erase_user(%s)", [ALICE])
    assert holds(owner) == [(SECOND, BOB, 10, "open")]
    for call in (capture, release):
        with refused(UNKNOWN_GENERATION):
            call(generator, FIRST)
