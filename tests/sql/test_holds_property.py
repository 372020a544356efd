"""Random spending matches the model, one call after the other and with 60 connections at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from threading import Barrier
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, example, given, settings

from support.calls import result_of
from support.databases import Database
from support.ledger_queries import wrong_balances
from support.roles import connected
from support.spending_model import Bank, Result, Step, run_step
from support.spending_steps import Customers, new_bank, random_step, state_of, steps
from support.waiting import WAIT_TIMEOUT

CONNECTIONS = 60
CALLS_EACH = 12
GENERATIONS = 90


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(made=steps)
@example(made=[("reserve", ("A", 60, "1")), ("take_back", ("A", 80)), ("capture", ("1", None))])
@example(made=[("reserve", ("A", 60, "1")), ("expire", ("1",)), ("authorize", ("A", 90, "2")), ("capture", ("1", 20))])
@example(made=[("reserve", ("A", 60, "1")), ("capture", ("1", 20)), ("refund", ("1",)), ("reserve", ("A", 60, "1"))])
def test_random_spending_matches_the_model(admin: psycopg.Connection[Any], made: list[Step]) -> None:
    """Every result is that of the model, and so are balances, available credits, holds and debits at the end."""
    customers, bank = Customers.sign_up(admin), new_bank()
    results = [result_of(lambda connection, step=step: customers.make(connection, step), admin) for step in made]
    assert results == [run_step(bank, step) for step in made]
    assert customers.state(admin) == state_of(bank)
    assert wrong_balances(admin) == []


@dataclass(frozen=True)
class Made:
    """A step that was made, its result, and numbers of a sequence.

    ``first`` and ``last`` were drawn before and after the step. ``number`` was drawn in the step's transaction, under
    the lock of the user's row, so it orders the steps that succeeded. A refused step has none.
    """

    step: Step
    result: Result
    first: int
    last: int
    number: int | None


def test_spending_of_60_connections_matches_the_model(database: Database, admin: psycopg.Connection[Any]) -> None:
    """There is an order in which the model returns the same results, and at the end both have the same state."""
    customers, random = Customers.sign_up(admin), Random(60)
    for number in range(GENERATIONS):
        customers.id_of(str(number))
    admin.execute("create sequence public.numbers; grant usage on sequence public.numbers to service_role")
    plans = [[random_step(random, GENERATIONS) for _ in range(CALLS_EACH)] for _ in range(CONNECTIONS)]
    made = make_at_once(database, customers, plans)
    states = replayed([one for one in made if one.number is not None])
    assert [one for one in made if one.number is None and not is_explained(one, made, states)] == []
    assert customers.state(admin) == state_of(states[-1])
    assert wrong_balances(admin) == []


def make_at_once(database: Database, customers: Customers, plans: Sequence[Sequence[Step]]) -> list[Made]:
    """Make each plan on its own connection, and return all steps, those that succeeded in their order."""
    start = Barrier(len(plans), timeout=WAIT_TIMEOUT)

    def run(connection: psycopg.Connection, plan: Sequence[Step]) -> list[Made]:
        start.wait()
        return [make(connection, customers, step) for step in plan]

    with ExitStack() as stack, ThreadPoolExecutor(len(plans)) as threads:
        connections = [stack.enter_context(connected(database, "service_role")) for _ in plans]
        for connection in connections:
            connection.execute("set statement_timeout = 0")
        made = [one for each in threads.map(run, connections, plans) for one in each]
    return sorted(made, key=lambda one: one.number or 0)


def make(connection: psycopg.Connection, customers: Customers, step: Step) -> Made:
    first = next_number(connection)
    number = None

    def call(connection: psycopg.Connection) -> int:
        nonlocal number
        with connection.transaction():
            result = customers.make(connection, step)
            number = next_number(connection)
        return result

    result = result_of(call, connection)
    return Made(step, result, first, next_number(connection), number)


def next_number(connection: psycopg.Connection) -> int:
    return connection.execute("select nextval('public.numbers')").fetchone()[0]


def replayed(succeeded: Sequence[Made]) -> list[Bank]:
    """Return the states of the model before, between and after the steps, each of which must return its result."""
    states = [new_bank()]
    for one in succeeded:
        states.append(states[-1].copy())
        assert run_step(states[-1], one.step) == one.result, one
    return states


def is_explained(refused: Made, made: Sequence[Made], states: Sequence[Bank]) -> bool:
    """Return whether the model refuses the step, too, in a state between its beginning and its end."""
    succeeded = [one for one in made if one.number is not None]
    earliest = next((index for index, one in enumerate(succeeded) if one.last > refused.first), len(succeeded))
    latest = sum(one.number < refused.last for one in succeeded)
    return any(run_step(state.copy(), refused.step) == refused.result for state in states[earliest : latest + 1])
