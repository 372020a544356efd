"""How much memory a worker process takes, and how long it takes to start."""

from __future__ import annotations

from statistics import median

from bench.load import saturate
from bench.report import Goal, Section
from bench.scenarios.bench import Bench
from bench.systems import WORKER, running

_STARTS = 5
_MEGABYTE = 1e6


def process(bench: Bench) -> Section:
    """Measure the largest worker process after a round of load, and several starts."""
    starts = []
    with bench.server.new_database("process") as database:
        for _ in range(_STARTS):
            with running(WORKER, database) as worker:
                starts.append(worker.seconds_to_start)
        with running(WORKER, database) as worker:
            saturate(worker, bench.seconds)
            memory = [size / _MEGABYTE for size in worker.worker_memory()]
    return Section(
        "A process",
        ("", ""),
        [
            ("resident memory of each process after a round", ", ".join(f"{size:.0f} MB" for size in memory)),
            ("from start to ready", ", ".join(f"{seconds:.2f} s" for seconds in starts)),
        ],
        [
            Goal("resident memory of a process", max(memory), most=80, unit=" MB"),
            Goal("from start to ready", median(starts), most=1.5, unit=" s"),
        ],
    )
