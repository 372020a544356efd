"""How many objects a second `webhook reconcile` reads and records, without Stripe's own latency."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.database import Database
from bench.report import Goal, Section
from bench.scenarios.bench import Bench
from webhook.dev import supervise
from webhook.dev.postgres import free_port
from webhook.settings import child_environment

_SESSIONS = 10_000


def reconcile(bench: Bench) -> Section:
    """Measure a run where every object is missing from the ledger, and one where every object is known."""
    rates: dict[str, float] = {}
    with bench.server.new_database("reconcile") as database:
        port = free_port()
        lists = [sys.executable, "-m", "bench.stripe_lists", str(port), str(_SESSIONS)]
        process = supervise.start(lists, environment=child_environment({}))
        try:
            for name, code in (("all of them missing", 1), ("all of them known", 0)):
                rates[name] = _SESSIONS / _run(database, port, code)
                bench.log(f"  {name}: {rates[name]:.0f}/s")
        finally:
            process.stop()
        database.check_rows("pi_3", _SESSIONS, _SESSIONS)
    return Section(
        "Reconciliation",
        (f"{_SESSIONS:,} sessions", "objects a second"),
        [(name, f"{rate:,.0f}") for name, rate in rates.items()],
        [Goal("objects a second that are reconciled, missing or known", min(rates.values()), least=1000)],
    )


def _run(database: Database, port: int, code: int) -> float:
    """Return how many seconds a run took; raise :class:`RuntimeError` unless it ended with the exit code."""
    environment = {
        "DATABASE_URL": database.worker_url,
        "STRIPE_API_KEY": "rk_test_bench",
        "STRIPE_API_BASE": f"http://127.0.0.1:{port}",
    }
    command = [str(Path(sys.executable).with_name("webhook")), "reconcile", "--since", "1d"]
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        command,
        env=child_environment(environment, without=("STRIPE_",)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != code:
        raise RuntimeError(f"reconcile ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - started
