"""Types and constants for the tests of ``webhook audit``, and the findings of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from click.testing import Result

Audit = Callable[..., Result]
Corrupt = Callable[..., None]
Worker = psycopg.Connection[Any]

HOLD = "eeeeeeee-0000-4000-8000-00000000000e"
GENERATION = "dddddddd-0000-4000-8000-00000000000d"
LONG_AGO = "update billing.sales set recorded_at = now() - interval '10 minutes'"
LINK = {"kind": "link", "id": "inpay_1", "invoice_id": "in_1"}


def findings(audit: Audit) -> list[str]:
    """Return the lines, and check that the exit code is 1 if there are any."""
    result = audit()
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (1 if lines else 0, "")
    return lines
