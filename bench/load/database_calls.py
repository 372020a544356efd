"""The pgbench loads: calls of the database without a worker."""

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


def record_sales(database: Database, seconds: float) -> Result:
    """Call ``billing.record`` as the worker does, one sale per call, on as many connections as wrk opens."""
    batch = secrets.token_hex(4)
    sale = Sale(f"pi_3{batch}:payment", SESSION, f"{USERS[0][:-3]}:user", 100, 1000, "usd", paid=True)
    call = json.dumps([{"event_id": f"evt_{batch}:payment", "facts": [as_json(sale)]}])
    variables = "\\set payment random(1, 9000000000000000)\n\\set user random(100, 999)\n"
    begin = query("begin_call").format(role="service_role")
    script = f"{variables}{in_one_query(begin)}\nselect billing.record('{call}');\n"
    result, count = run_script(database.worker_url, script, seconds, CONNECTIONS)
    database.check_rows(batch, count, count)
    return result


def in_one_query(statements: str) -> str:
    r"""Return the statements for a script. A \; keeps them in one simple query with the next one."""
    return statements.strip().replace(";", " \\;")


def run_script(url: str, script: str, seconds: float, clients: int) -> tuple[Result, int]:
    """Return the rate of a pgbench script with its mean time as ``p50``, and how often it ran."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.sql"
        file.write_text(script, encoding="utf-8")
        options = (f"--client={clients}", "--jobs=1", f"--time={seconds:.0f}", f"--file={file}", "--protocol=simple")
        output = output_of([str(programs() / "pgbench"), "--no-vacuum", *options, url])
    count = int(_figure(output, r"transactions actually processed: (\d+)"))
    return Result(_figure(output, r"tps = ([\d.]+)"), _figure(output, r"latency average = ([\d.]+)")), count


def _figure(output: str, pattern: str) -> float:
    found = re.search(pattern, output)
    if not found:
        raise RuntimeError(f"{pattern} is not in the output of pgbench: {output}")
    return float(found[1])
