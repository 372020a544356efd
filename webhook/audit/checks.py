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

CHECKS = ("balances", "sales", "generations", "holds", "operator_actions", "parked_events")
"""Files or folders of ``sql/checks``. Their rows are findings."""

REMEDIES = {
    "balance": "find out who bypassed the trigger or restored a part of the database",
    "settlement": "resend an event of the payment (Stripe's Dashboard, Workbench, Events): its rows are topped up",
    "row": "find out who entered the row; it cannot be changed: run `webhook adjust USER CREDITS --reason TEXT`",
    "currency": "give back what the refund should not have taken: run `webhook adjust USER CREDITS --reason TEXT`",
    "generation": "correct the balance: run `webhook adjust USER CREDITS --reason TEXT`",
    "hold": "find out who changed the hold or its row; then run `webhook adjust USER CREDITS --reason TEXT`",
    "operator": "find out who bypassed the operators' functions; then run `webhook adjust USER CREDITS --reason TEXT`",
    "parked": "run `webhook parked`: it shows what to do for each reason",
    "stripe": "run `webhook reconcile --since DATE` from before the payment",
}
"""What to do about the findings of each check. docs/reference/audit.md explains them one by one."""


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
        subject = ", ".join(f"{name.removesuffix('_id')} {_text(value)}" for name, value in self.subject.items())
        return f"{self.check}: {subject}: {self.problem}: expected {_text(self.expected)}, found {_text(self.found)}"

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``--json``."""
        verdict = {"problem": self.problem, "expected": self.expected, "found": self.found}
        return {"check": self.check, **self.subject, **verdict, "what_to_do": REMEDIES[self.check]}


Comparison = Callable[[Ledger], Iterator[Finding]]
"""Takes the ledger and yields further findings."""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(value)


def run(comparison: Comparison | None = None, *, as_json: bool) -> bool:
    """Print a line for each finding, those of a ``comparison`` included, and return whether there are none.

    Raises :class:`LedgerUnavailableError`, and the errors of the comparison.
    """
    checks: set[str] = set()
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        for finding in _findings(ledger, comparison):
            click.echo(json.dumps(finding.fields()) if as_json else finding)
            checks.add(finding.check)
    if sys.stdout.isatty() and not as_json:
        for line in (
            ["", *(f"{check}: {REMEDIES[check]}" for check in sorted(checks))] if checks else ["Nothing found."]
        ):
            click.echo(line)
    return not checks


def _findings(ledger: Ledger, comparison: Comparison | None) -> Iterator[Finding]:
    with ledger.snapshot() as check:
        for name in CHECKS:
            for row in check(name):
                yield Finding(row["check"], row["subject"], row["problem"], row["expected"], row["found"])
    if comparison:
        yield from comparison(ledger)
