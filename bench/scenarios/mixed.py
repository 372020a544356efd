"""The worker and Express on a mixed load, in which a refund or a renewal takes the worker more than one insert."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bench.load import saturate
from bench.mix import mixed
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import SYSTEMS, running


def mixed_load(bench: Bench) -> Section:
    """Measure the worker and Express on the same mixed load."""
    systems = [system for system in SYSTEMS if system.letter in "ab"]
    with ExitStack() as stack:
        loads = {}
        for system in systems:
            database = stack.enter_context(bench.server.new_database(f"mixed_{system.letter}"))
            loads[system.letter] = partial(saturate, stack.enter_context(running(system, database)), write=mixed)
        results = bench.in_turn(loads)
    return Section(
        "A mixed load",
        ("", "", *HEAD),
        [(system.letter, system.title, *cells(results[system.letter])) for system in systems],
        [Goal("mixed deliveries a second, a/b", results["a"].rate / results["b"].rate, least=1.0)],
        "60 % sales by session, 15 % sessions that name a customer, 10 % renewals (half of them invoices, half their "
        "links to the payment), 10 % refunds and 5 % redeliveries.",
    )
