"""How fast the console's pages are on a large ledger, and what its readers cost the deliveries."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from functools import partial
from statistics import median

from bench import console_ledger
from bench.console_ledger import BUSY, BUSY_ROWS, PARKED, PARKED_EVENT, QUIET, QUIET_ROWS, ROWS, SALE, USERS
from bench.load import Result, saturate
from bench.load.readers import Count, Reader, reading
from bench.report import Goal, Section
from bench.scenarios.bench import HEAD, Bench, cells
from bench.systems import WORKER, Running, running

_TOKEN = secrets.token_urlsafe(32)
_ENTRY = f"bench:viewer:{hashlib.sha256(_TOKEN.encode()).hexdigest()}"
_SYSTEM = replace(WORKER, variables={"CONSOLE_TOKENS": _ENTRY})
_QUIET_USER, _BUSY_USER = f"user with {QUIET_ROWS} rows", f"user with {BUSY_ROWS:,} rows"
_PAGES = {
    "home, with the chart of 30 days": "/console",
    "search for an e-mail address": "/console/search?q=user7@example.com",
    _QUIET_USER: f"/console/users/{QUIET}",
    _BUSY_USER: f"/console/users/{BUSY}",
    "sale with a refund": f"/console/sales/{SALE}",
    f"list of {PARKED:,} parked events": "/console/parked",
    "parked event": f"/console/parked/{PARKED_EVENT}",
}
_TIMES = 15
"""How often each page is opened in a round."""
_READERS = 8
_PAUSE = 1.0
"""Seconds between two pages of a reader."""


def console(bench: Bench) -> Section:
    """Measure each page, then deliveries without readers and with eight of them."""
    with bench.server.new_database("console") as database:
        console_ledger.fill(database)
        with running(_SYSTEM, database) as worker:
            medians = _measure_pages(bench, Reader(worker.url, _TOKEN))
            results = bench.in_turn(
                {
                    "nobody reads": partial(saturate, worker),
                    f"{_READERS} readers": partial(_saturate_beside_readers, bench, worker),
                }
            )
    alone, beside = (result.rate for result in results.values())
    return Section(
        "The console",
        ("", "median ms", *HEAD),
        [
            *((title, f"{each:.0f}", *[""] * len(HEAD)) for title, each in medians.items()),
            *((f"deliveries while {name}", "", *cells(result)) for name, result in results.items()),
        ],
        [
            Goal("slowest page of the console, median", max(medians.values()), most=200, unit=" ms"),
            Goal(f"{_BUSY_USER}, against {QUIET_ROWS}", medians[_BUSY_USER] / medians[_QUIET_USER], most=1.5),
            Goal(f"rate of deliveries beside {_READERS} readers of the console", beside / alone, least=0.85),
        ],
        f"{ROWS:,} ledger rows and {USERS:,} users. One reader opens each page. Then {_READERS} readers open a page a "
        "second each, beside deliveries at full speed.",
    )


def _measure_pages(bench: Bench, reader: Reader) -> dict[str, float]:
    """Return the median time of each page in milliseconds. The pages take turns."""
    times: dict[str, list[float]] = {title: [] for title in _PAGES}
    for _ in range(_TIMES * bench.rounds):
        for title, path in _PAGES.items():
            times[title].append(reader.timed(path))
    medians = {title: median(each) for title, each in times.items()}
    for title, each in medians.items():
        bench.log(f"  {title}: {each:.1f} ms")
    return medians


def _saturate_beside_readers(bench: Bench, worker: Running, seconds: float) -> Result:
    with reading(Reader(worker.url, _TOKEN), list(_PAGES.values()), _READERS, _PAUSE) as count:
        result = saturate(worker, seconds)
    bench.log(f"  {_line(count)}")
    return result


def _line(count: Count) -> str:
    return f"{len(count.opened)} pages opened, {len(count.busy)} times busy"
