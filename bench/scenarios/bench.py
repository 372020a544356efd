"""The input of every scenario: the database server and the length of each measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
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
    figures = zip(*map(astuple, results), strict=True)
    return Result(*(None if None in rounds else median(rounds) for rounds in figures))


def _line(result: Result) -> str:
    p99 = f", p99 {result.p99:.1f} ms" if result.p99 is not None else ""
    cpu = [f"{each:.0f} µs" for each in (result.program_cpu, result.database_cpu) if each is not None]
    return f"{result.rate:.0f}/s{p99}" + (f", CPU {' + '.join(cpu)}" if cpu else "")


HEAD = ("deliveries a second", "p50 ms", "p99 ms", "CPU of the program, µs", "of Postgres, µs")
"""The titles of the columns of :func:`cells`."""


def cells(result: Result) -> tuple[str, ...]:
    """Return the figures of a result as table cells."""
    figures = zip(astuple(result), (0, 1, 1, 0, 0), strict=True)
    return tuple("" if figure is None else f"{figure:.{digits}f}" for figure, digits in figures)
