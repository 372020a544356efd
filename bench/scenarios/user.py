"""How sales of one user slow each other down: each of them locks the user's row."""

from __future__ import annotations

from functools import partial

from bench.deliveries import USERS, sales
from bench.load import saturate
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import WORKER, running


def one_user(bench: Bench) -> Section:
    """Measure the worker with sales of many users, and with all sales on one user."""
    with bench.server.new_database("users") as database, running(WORKER, database) as worker:
        results = bench.in_turn(
            {
                f"{len(USERS):,} users": partial(saturate, worker),
                "one user": partial(saturate, worker, write=sales(USERS[:1])),
            }
        )
    rate_of_many, rate_of_one = (result.rate for result in results.values())
    return Section(
        "One user or many",
        ("sales of", *HEAD),
        [(name, *cells(result)) for name, result in results.items()],
        [Goal("rate with all sales on one user, against many", rate_of_one / rate_of_many, least=0.5)],
    )
