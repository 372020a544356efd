"""How long a delivery takes when the worker is not saturated."""

from __future__ import annotations

from functools import partial

from bench.load import steady
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import WORKER, running

_RATE = 200


def steady_rate(bench: Bench) -> Section:
    """Measure how fast the worker answers at a steady rate."""
    with bench.server.new_database("steady") as database, running(WORKER, database) as worker:
        [result] = bench.in_turn({"steady": partial(steady, worker, rate=_RATE)}).values()
    goal = Goal(f"p99 at a steady {_RATE} a second", result.p99 or 0, most=8, unit=" ms")
    return Section("At a steady rate", HEAD, [cells(result)], [goal])
