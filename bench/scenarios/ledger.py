"""How the size of the ledger affects the worker."""

from __future__ import annotations

from functools import partial

from bench.load import saturate
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import WORKER, running

_ROWS = 10_000_000


def large_ledger(bench: Bench) -> Section:
    """Measure the worker on an empty ledger and on one of ten million rows."""
    with bench.server.new_database("ledger_empty") as empty, bench.server.new_database("ledger_full") as full:
        full.fill(_ROWS)
        with running(WORKER, empty) as on_empty, running(WORKER, full) as on_full:
            results = bench.in_turn(
                {
                    "empty": partial(saturate, on_empty),
                    f"{_ROWS:,} rows": partial(saturate, on_full),
                }
            )
    rate_of_empty, rate_of_full = (result.rate for result in results.values())
    return Section(
        "Size of the ledger",
        ("ledger", *HEAD),
        [(name, *cells(result)) for name, result in results.items()],
        [Goal(f"rate with {_ROWS:,} rows in the ledger, against empty", rate_of_full / rate_of_empty, least=0.9)],
    )
