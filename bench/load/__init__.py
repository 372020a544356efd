"""The load: wrk at full speed, steady.js at a steady rate, pgbench (database_calls.py) without a worker."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.deliveries import Deliveries, Write, sales, write_deliveries
from bench.systems import Running

CONNECTIONS = 16
MOST_A_SECOND = 16_000
"""How many deliveries are prepared for each second of load."""

_HERE = Path(__file__).parent
_MICROSECONDS = 1e6


class LoadError(Exception):
    """A delivery was rejected, a connection broke, or the prepared deliveries ran out."""


@dataclass(frozen=True)
class Result:
    """The measurements of a load: deliveries a second, and response times in milliseconds."""

    rate: float
    p50: float
    p99: float | None = None
    program_cpu: float | None = None
    """Processor time of the program for each delivery, in microseconds."""
    database_cpu: float | None = None
    """Processor time of its sessions in Postgres for each delivery, in microseconds."""


def saturate(system: Running, seconds: float, write: Write | None = None) -> Result:
    """Deliver at full speed with wrk, then check that each sale answered 200 is in the database."""
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(_HERE / "deliver.lua"))
    command = [*wrk, system.url, "--"]
    return _deliver(system, int(seconds * MOST_A_SECOND), write or sales(), lambda file: [*command, file])


def steady(system: Running, seconds: float, rate: int) -> Result:
    """Deliver ``rate`` sales a second. Each response time counts from when the delivery was due."""
    node = ["node", str(_HERE / "steady.js"), system.url]
    options = [str(number) for number in (rate, int(seconds), CONNECTIONS)]
    return _deliver(system, int(seconds) * rate, sales(), lambda file: [*node, file, *options])


def _deliver(system: Running, count: int, write: Write, command: Callable[[str], list[str]]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        deliveries = write_deliveries(Path(folder) / "deliveries", count, write)
        before = _cpu_seconds(system)
        counts = json.loads(output_of(command(str(deliveries.path))).splitlines()[-1])
        used = [end - start for start, end in zip(before, _cpu_seconds(system), strict=True)]
    _check(system, deliveries, counts)
    cpu = [each * _MICROSECONDS / counts["answered"] for each in used]
    return Result(counts["answered"] / counts["seconds"], counts["p50"], counts["p99"], *cpu)


def _cpu_seconds(system: Running) -> list[float]:
    return [each.cpu_seconds() for each in (system, system.database) if each]


def _check(system: Running, deliveries: Deliveries, counts: dict[str, Any]) -> None:
    if counts["rejected"] or counts["broken"] or counts["ran_out"]:
        raise LoadError(f"deliveries were rejected, interrupted or used up: {counts}")
    if system.database:
        system.database.check(deliveries, counts["sent"], counts["answered"])


def output_of(command: Sequence[str]) -> str:
    """Return the output of a program; raise :class:`LoadError` if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout
