"""Whether sales of one user, whose row each of them locks, hold each other up."""

from __future__ import annotations

from functools import partial

from bench.contenders import WORKER, running
from bench.deliveries import USERS
from bench.lines.bench import Bench, cells
from bench.load import saturate
from bench.report import Goal, Section


def one_user(bench: Bench) -> Section:
    """Measure the worker with all sales on one user, and spread over many."""
    with bench.server.new_database("users") as database, running(WORKER, database) as worker:
        results = bench.in_turn(
            {
                f"{len(USERS):,} users": partial(saturate, worker.url, database),
                "one user": partial(saturate, worker.url, database, users=USERS[:1]),
            }
        )
    rate_of_many, rate_of_one = (result.rate for result in results.values())
    return Section(
        "One user or many",
        ("sales of", "sales a second", "p50 ms", "p99 ms"),
        [(name, *cells(result)) for name, result in results.items()],
        [Goal("rate with all sales on one user, against many", rate_of_one / rate_of_many, least=0.5)],
    )
