"""The load: wrk as fast as it goes, steady.js at a steady rate, pgbench (database_calls.py) without any worker."""

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
"""So many deliveries are prepared for each second."""

_HERE = Path(__file__).parent


class LoadError(Exception):
    """The load was not what it should have been: a delivery refused, a connection broken."""


@dataclass(frozen=True)
class Result:
    """What a load measured: sales a second, and the times of the answers in milliseconds."""

    rate: float
    p50: float
    p99: float | None


def saturate(url: str, database: Database | None, seconds: float, users: tuple[str, ...] = USERS) -> Result:
    """Deliver as fast as it goes, with wrk. Each sale that was answered 200 has to be in the ``database``, if given."""
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(_HERE / "deliver.lua"))
    return _deliver(int(seconds * MOST_A_SECOND), users, database, lambda *file: [*wrk, url, "--", *file])


def steady(url: str, database: Database, seconds: float, rate: int) -> Result:
    """Deliver ``rate`` sales a second; the times count from when a delivery was due."""
    node = ("node", str(_HERE / "steady.js"), url)
    options = [str(number) for number in (rate, int(seconds), CONNECTIONS)]
    return _deliver(int(seconds) * rate, USERS, database, lambda *file: [*node, *file, *options])


def _deliver(
    count: int, users: tuple[str, ...], database: Database | None, command: Callable[[str, str], list[str]]
) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        deliveries = write_deliveries(Path(folder) / "deliveries", count, users)
        told = json.loads(output_of(command(str(deliveries.path), str(deliveries.body_length))).splitlines()[-1])
    if told["refused"] or told["broken"] or told["ran_out"]:
        raise LoadError(f"not a clean run: {told}")
    if database:
        # What was under way at the end may have been recorded as well.
        database.check(deliveries.payments, least=told["answered"], most=told["sent"])
    return Result(told["answered"] / told["seconds"], told["p50"], told["p99"])


def output_of(command: Sequence[str]) -> str:
    """Return what a program prints; raise :class:`LoadError` where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout
