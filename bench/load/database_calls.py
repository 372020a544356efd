"""The pgbench load: the worker's own SQL call, without a worker."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from pathlib import Path

from bench.database import Database
from bench.deliveries import USERS
from bench.load import CONNECTIONS, Result, output_of
from webhook.dev.cluster import programs
from webhook.events.facts import SESSION, Sale, as_json
from webhook.ledger.queries import query


def saturate_database(database: Database, seconds: float) -> Result:
    """Call ``billing.record`` as the worker does, one sale per call, on as many connections as wrk opens."""
    payments = f"pi_3{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "sale.sql"
        script.write_text(_script(payments), encoding="utf-8")
        output = output_of(_pgbench(script, database, seconds))
    count = int(_figure(output, r"transactions actually processed: (\d+)"))
    database.check(payments, count, count)
    return Result(_figure(output, r"tps = ([\d.]+)"), _figure(output, r"latency average = ([\d.]+)"), None)


def _pgbench(script: Path, database: Database, seconds: float) -> list[str]:
    options = (f"--client={CONNECTIONS}", "--jobs=1", f"--time={seconds:.0f}", f"--file={script}")
    return [str(programs() / "pgbench"), "--no-vacuum", "--protocol=simple", *options, database.worker_url]


def _script(payments: str) -> str:
    r"""Return the call with pgbench's variables. A \; keeps several statements in one simple query."""
    sale = Sale(f"{payments}:payment", SESSION, f"{USERS[0][:-3]}:user", 100, 1000, "usd", paid=True)
    call = json.dumps([{"event_id": f"evt_{payments}:payment", "facts": [as_json(sale)]}])
    return (
        "\\set payment random(1, 9000000000000000)\n"
        "\\set user random(100, 999)\n"
        + query("begin_call").strip().replace(";", " \\;")
        + f"\nselect billing.record('{call}');\n"
    )


def _figure(output: str, pattern: str) -> float:
    found = re.search(pattern, output)
    if not found:
        raise RuntimeError(f"{pattern} is not in the output of pgbench: {output}")
    return float(found[1])
