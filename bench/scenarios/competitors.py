"""The worker compared with its competitors and with two upper limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.load import CONNECTIONS, Result, saturate
from bench.load.database_calls import record_sales
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import SYSTEMS, running

_TITLES = {system.letter: system.title for system in SYSTEMS} | {"e": "pgbench with the worker's SQL call"}
_RATES = {"b": 1.4, "c": 3.5, "e": 1.0}
"""The least ratio of our rate to the rate of each competitor."""
LETTERS = tuple(_TITLES)


def competitors(bench: Bench) -> Section:
    """Measure the worker and its competitors under saturation."""
    with _loads(bench) as loads:
        results = bench.in_turn(loads)
    return Section(
        f"Sales over {CONNECTIONS} connections",
        ("", "", *HEAD),
        [(letter, _TITLES[letter], *cells(result)) for letter, result in results.items()],
        list(_goals(results)),
        "Each delivery is a new sale of one of a thousand users. After each round, every sale that was answered 200 "
        "is looked up in the ledger. Processor time is per delivery. For (e), p50 is the mean.",
    )


def _goals(results: dict[str, Result]) -> Iterator[Goal]:
    ours, express, flask = (results.get(letter) for letter in "abd")
    if not ours:
        return
    for letter, least in _RATES.items():
        if letter in results:
            yield Goal(f"sales a second, a/{letter}", ours.rate / results[letter].rate, least=least)
    if flask and flask.program_cpu and ours.program_cpu:
        yield Goal("CPU of Python, a/d", ours.program_cpu / flask.program_cpu, most=2.0)
    if express and express.p99 and ours.p99:
        yield Goal("p99 under saturation, a/b", ours.p99 / express.p99, most=0.6)


@contextmanager
def _loads(bench: Bench) -> Iterator[dict[str, Callable[[float], Result]]]:
    loads: dict[str, Callable[[float], Result]] = {}
    with ExitStack() as stack:
        for system in SYSTEMS:
            if system.letter in bench.letters:
                database = stack.enter_context(bench.server.new_database(f"competitor_{system.letter}"))
                loads[system.letter] = partial(saturate, stack.enter_context(running(system, database)))
        if "e" in bench.letters:
            loads["e"] = partial(record_sales, stack.enter_context(bench.server.new_database("competitor_e")))
        yield loads
