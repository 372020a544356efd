"""The worker compared with its competitors and with two upper limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.load import CONNECTIONS, Result, saturate
from bench.load.database_calls import saturate_database
from bench.report import Goal, Section
from bench.scenarios.bench import Bench, cells
from bench.systems import SYSTEMS, running

_TITLES = {system.letter: system.title for system in SYSTEMS} | {"e": "pgbench with the worker's SQL call"}
_GOALS = {"b": 1.3, "c": 3.0, "d": 0.6, "e": 0.5}
LETTERS = tuple(_TITLES)


def competitors(bench: Bench) -> Section:
    """Measure the worker and its competitors under saturation."""
    with _loads(bench) as loads:
        results = bench.in_turn(loads)
    return Section(
        f"Sales a second over {CONNECTIONS} connections",
        ("", "", "sales a second", "p50 ms", "p99 ms"),
        [(letter, _TITLES[letter], *cells(result)) for letter, result in results.items()],
        list(_goals(results)),
        "Each delivery is a new sale of one of a thousand users. After each round, every sale that was answered 200 "
        "is looked up in the ledger. For (e), p50 is the mean.",
    )


def _goals(results: dict[str, Result]) -> Iterator[Goal]:
    ours = results.get("a")
    if not ours:
        return
    for letter, least in _GOALS.items():
        if letter in results:
            yield Goal(f"sales a second, a/{letter}", ours.rate / results[letter].rate, least=least)
    if "b" in results and ours.p99:
        yield Goal("p99 under saturation, against (b)'s", ours.p99, most=results["b"].p99, unit=" ms")


@contextmanager
def _loads(bench: Bench) -> Iterator[dict[str, Callable[[float], Result]]]:
    loads: dict[str, Callable[[float], Result]] = {}
    with ExitStack() as stack:
        for system in SYSTEMS:
            if system.letter in bench.letters:
                database = stack.enter_context(bench.server.new_database(f"competitor_{system.letter}"))
                url = stack.enter_context(running(system, database)).url
                loads[system.letter] = partial(saturate, url, database if system.records else None)
        if "e" in bench.letters:
            loads["e"] = partial(saturate_database, stack.enter_context(bench.server.new_database("competitor_e")))
        yield loads
