"""The input of every scenario: the database server and the length of each measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from bench.database import Server
from bench.load import Result

WARM_UP = 2
"""Seconds of load before the first round. They fill plan caches and warm up just-in-time compilers."""


@dataclass(frozen=True)
class Bench:
    """The database server, the length and number of rounds, and the competitors."""

    server: Server
    seconds: float
    rounds: int
    letters: frozenset[str]
    """The competitors to measure."""
    log: Callable[[str], None]

    def in_turn(self, loads: dict[str, Callable[[float], Result]]) -> dict[str, Result]:
        """Run the loads in turn and return the median of each one's rounds. A load takes its length in seconds."""
        for load in loads.values():
            load(WARM_UP)
        results: dict[str, list[Result]] = {name: [] for name in loads}
        for number in range(1, self.rounds + 1):
            for name, load in loads.items():
                results[name].append(load(self.seconds))
                self.log(f"  round {number}, {name}: {_line(results[name][-1])}")
        return {name: _medians(rounds) for name, rounds in results.items()}


def _medians(results: Iterable[Result]) -> Result:
    rates, p50s, p99s = zip(*((result.rate, result.p50, result.p99) for result in results), strict=True)
    return Result(median(rates), median(p50s), None if None in p99s else median(p99s))


def _line(result: Result) -> str:
    return f"{result.rate:.0f}/s" + ("" if result.p99 is None else f", p99 {result.p99:.1f} ms")


def cells(result: Result) -> tuple[str, str, str]:
    """Return rate, p50 and p99 as table cells."""
    return f"{result.rate:.0f}", f"{result.p50:.1f}", "" if result.p99 is None else f"{result.p99:.1f}"
