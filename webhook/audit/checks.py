"""``webhook audit``: checks balances and ledger rows against the facts. Reads one snapshot, changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from webhook.ledger.ledger import Ledger
from webhook.settings import read_database_url

CHECKS = ("balances", "sales", "generations", "holds", "parked_events")
"""Files or folders of ``sql/checks``. Their rows are findings."""


@dataclass(frozen=True)
class Finding:
    """Something in the ledger that is not as expected."""

    check: str
    subject: dict[str, Any]
    """What it concerns: ``user_id``, ``payment_id``, ``row`` (a stripe_id, else an id) …"""
    problem: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        """Return one line."""
        subject = ", ".join(f"{name.removesuffix('_id')} {value}" for name, value in self.subject.items())
        return f"{self.check}: {subject}: {self.problem}: expected {_text(self.expected)}, found {_text(self.found)}"

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``--json``."""
        verdict = {"problem": self.problem, "expected": self.expected, "found": self.found}
        return {"check": self.check, **self.subject, **verdict}


Comparison = Callable[[Ledger], Iterator[Finding]]
"""Takes the ledger and yields further findings."""


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)


def run(comparison: Comparison | None = None, *, as_json: bool) -> bool:
    """Print a line for each finding, those of a ``comparison`` included, and return whether there are none.

    Raises :class:`LedgerUnavailableError`, and the errors of the comparison.
    """
    is_clean = True
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        for finding in _findings(ledger, comparison):
            click.echo(json.dumps(finding.fields()) if as_json else finding)
            is_clean = False
    if sys.stdout.isatty() and is_clean and not as_json:
        click.echo("Nothing found.")
    return is_clean


def _findings(ledger: Ledger, comparison: Comparison | None) -> Iterator[Finding]:
    with ledger.snapshot() as check:
        for name in CHECKS:
            for row in check(name):
                yield Finding(row["check"], row["subject"], row["problem"], row["expected"], row["found"])
    if comparison:
        yield from comparison(ledger)
