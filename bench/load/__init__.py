"""The load: wrk at full speed, steady.js at a steady rate, pgbench (database_calls.py) without a worker."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.database import Database
from bench.deliveries import USERS, write_deliveries

CONNECTIONS = 16
MOST_A_SECOND = 10_000
"""How many deliveries are prepared for each second of load."""

_HERE = Path(__file__).parent


class LoadError(Exception):
    """A delivery was rejected, a connection broke, or the prepared deliveries ran out."""


@dataclass(frozen=True)
class Result:
    """The measurements of a load: sales a second, and response times in milliseconds."""

    rate: float
    p50: float
    p99: float | None


def saturate(url: str, database: Database | None, seconds: float, users: tuple[str, ...] = USERS) -> Result:
    """Deliver at full speed with wrk, then check that each sale answered 200 is in the ``database``, if given."""
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(_HERE / "deliver.lua"))
    return _deliver(int(seconds * MOST_A_SECOND), users, database, lambda *file: [*wrk, url, "--", *file])


def steady(url: str, database: Database, seconds: float, rate: int) -> Result:
    """Deliver ``rate`` sales a second. Each response time counts from when the delivery was due."""
    node = ("node", str(_HERE / "steady.js"), url)
    options = [str(number) for number in (rate, int(seconds), CONNECTIONS)]
    return _deliver(int(seconds) * rate, USERS, database, lambda *file: [*node, *file, *options])


def _deliver(
    count: int, users: tuple[str, ...], database: Database | None, command: Callable[[str, str], list[str]]
) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        deliveries = write_deliveries(Path(folder) / "deliveries", count, users)
        counts = json.loads(output_of(command(str(deliveries.path), str(deliveries.body_length))).splitlines()[-1])
    if counts["rejected"] or counts["broken"] or counts["ran_out"]:
        raise LoadError(f"deliveries were rejected, interrupted or used up: {counts}")
    if database:
        # Deliveries in flight at the end may have been recorded as well.
        database.check(deliveries.payments, least=counts["answered"], most=counts["sent"])
    return Result(counts["answered"] / counts["seconds"], counts["p50"], counts["p99"])


def output_of(command: Sequence[str]) -> str:
    """Return the output of a program; raise :class:`LoadError` if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout
