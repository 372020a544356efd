"""Calls of database functions from several connections at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier

import psycopg

from support.generations import authorize, capture, new_generation, release, reserve
from support.waiting import WAIT_TIMEOUT

CALLERS = 12
"""The number of connections of the fixture ``callers``."""

Call = Callable[[psycopg.Connection], int]
Making = Callable[..., Call]
Results = list[int | str]
Waiting = Callable[[Call, psycopg.Connection], Future[int | str]]


def result_of(call: Call, connection: psycopg.Connection) -> int | str:
    """Return the credits from a call, or the SQLSTATE of its refusal."""
    try:
        return call(connection)
    except psycopg.Error as error:
        return error.sqlstate or str(error)


def run_rounds(connections: Sequence[psycopg.Connection], rounds: Sequence[Sequence[Call]]) -> list[Results]:
    """Return the results of each round. All connections start a round at the same moment."""
    start = Barrier(len(connections), timeout=WAIT_TIMEOUT)

    def run_calls(number: int) -> Results:
        results = []
        for calls in rounds:
            start.wait()
            results.append(result_of(calls[number % len(calls)], connections[number]))
        return results

    with ThreadPoolExecutor(len(connections)) as threads:
        return [list(results) for results in zip(*threads.map(run_calls, range(len(connections))), strict=True)]


def reserving(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: reserve(connection, user, cost, generation or new_generation())


def capturing(generation: str, cost: int | None = None) -> Call:
    return lambda connection: capture(connection, generation, cost)


def releasing(generation: str) -> Call:
    return lambda connection: release(connection, generation)


def spending(user: str, cost: int, generation: str = "") -> Call:
    return lambda connection: authorize(connection, user, cost, generation or new_generation())
