"""What every line of the bench is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from bench.database import Server
from bench.load import Result

WARM_UP = 2
"""Seconds of load before the first round: caches of plans, just-in-time compilers."""


@dataclass(frozen=True)
class Bench:
    """The server, and how long to measure."""

    server: Server
    seconds: float
    rounds: int
    letters: frozenset[str]
    """Who is measured among the rivals."""
    say: Callable[[str], None]

    def in_turn(self, loads: dict[str, Callable[[float], Result]]) -> dict[str, Result]:
        """Return the medians of each load's rounds; a load takes how many seconds it lasts."""
        for load in loads.values():
            load(WARM_UP)
        results: dict[str, list[Result]] = {name: [] for name in loads}
        for number in range(1, self.rounds + 1):
            for name, load in loads.items():
                results[name].append(load(self.seconds))
                self.say(f"  round {number}, {name}: {_shown(results[name][-1])}")
        return {name: _medians(rounds) for name, rounds in results.items()}


def _medians(results: Iterable[Result]) -> Result:
    rates, p50s, p99s = zip(*((result.rate, result.p50, result.p99) for result in results), strict=True)
    return Result(median(rates), median(p50s), None if None in p99s else median(p99s))


def _shown(result: Result) -> str:
    return f"{result.rate:.0f}/s" + ("" if result.p99 is None else f", p99 {result.p99:.1f} ms")


def cells(result: Result) -> tuple[str, str, str]:
    """Return rate and times as they stand in a table."""
    return f"{result.rate:.0f}", f"{result.p50:.1f}", "" if result.p99 is None else f"{result.p99:.1f}"
