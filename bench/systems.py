"""The systems under test: the worker, its competitors, and the framework alone as an upper limit."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.cpu import children, cpu_seconds
from bench.database import Database
from bench.deliveries import SECRET
from webhook.dev import supervise
from webhook.dev.postgres import free_port
from webhook.settings import child_environment

COMPETITORS = Path(__file__).parent / "competitors"
_START_TIMEOUT = 30


@dataclass(frozen=True)
class System:
    """A program that takes deliveries."""

    letter: str
    title: str
    command: Callable[[int], list[str]]
    """Return the command that starts it on a port."""
    ready: str = "/healthz"
    is_ours: bool = False
    records: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    """Its further environment variables."""

    def environment(self, database: Database, port: int) -> dict[str, str]:
        """Return its environment. The worker connects with its own login, a competitor as the schema's owner."""
        changes = {
            "DATABASE_URL": database.worker_url if self.is_ours else database.owner_url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "STRIPE_LIVEMODE": "false",
            "NODE_ENV": "production",
            "PORT": str(port),
            **self.variables,
        }
        return child_environment(changes, without=("CONSOLE_", "OPERATOR_", "STRIPE_", "PG", "WEB_CONCURRENCY"))


def _gunicorn(*options: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", *options]


_OURS = ("--config", "python:webhook.server.gunicorn_conf")
WORKER = System("a", "this worker", lambda _: _gunicorn(*_OURS), "/readyz", is_ours=True)
SYSTEMS = (
    WORKER,
    System("b", "Express, stripe-node, pg", lambda _: ["node", str(COMPETITORS / "express/server.js")]),
    System(
        "c",
        "Flask as in Stripe's documentation, gunicorn sync workers",
        lambda port: _gunicorn(
            *("--bind", f"127.0.0.1:{port}", "--workers", str(2 * (os.cpu_count() or 1) + 1)),
            *("--no-control-socket", "--log-level", "warning", "bench.competitors.flask_docs:create_app()"),
        ),
    ),
    System(
        "d",
        "Flask that answers 200, on the worker's gunicorn settings",
        lambda _: _gunicorn(*_OURS, "bench.competitors.flask_ok:create_app()"),
        records=False,
    ),
)


@dataclass(frozen=True)
class Running:
    """A running system that answers requests."""

    url: str
    database: Database | None
    """The database that it records sales in, if it does."""
    seconds_to_start: float
    process: supervise.SupervisedProcess

    def worker_memory(self) -> list[int]:
        """Return the resident set of each worker process, in bytes."""
        return [_resident(pid) for pid in children(self._program)]

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have used."""
        return cpu_seconds([self._program, *children(self._program)])

    @property
    def _program(self) -> int:
        return children(self.process.process.pid)[0]


@contextmanager
def running(system: System, database: Database) -> Iterator[Running]:
    """Yield the system once it is ready, and stop it at the end of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = supervise.start(system.command(port), environment=system.environment(database, port), output=log)
        try:
            _wait_until_ready(url + system.ready, process)
            recorded = database if system.records else None
            yield Running(url, recorded, time.perf_counter() - started, process)
        finally:
            process.stop()


def _wait_until_ready(url: str, process: supervise.SupervisedProcess) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.exit_code is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=_START_TIMEOUT):  # noqa: S310
            return
        time.sleep(0.005)
    raise RuntimeError(f"no answer from {url}")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
