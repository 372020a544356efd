"""``webhook audit``: does the ledger add up, and is it what the facts say? Reads one snapshot, changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from webhook.ledger.ledger import Ledger
from webhook.settings import read_database_url

CHECKS = ("audit_balances", "audit_payments", "audit_generations", "audit_parked")
"""Files of ``sql/checks``. Their rows are findings."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be."""

    check: str
    subject: dict[str, Any]
    """Who or what it is about: ``user_id``, ``payment_id``, ``row`` (a stripe_id, else an id) …"""
    what: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        """Return one line."""
        subject = ", ".join(f"{name.removesuffix('_id')} {value}" for name, value in self.subject.items())
        return f"{self.check}: {subject}: {self.what}: expected {_text(self.expected)}, found {_text(self.found)}"

    def fields(self) -> dict[str, Any]:
        """Return it as --json names it."""
        verdict = {"what": self.what, "expected": self.expected, "found": self.found}
        return {"check": self.check, **self.subject, **verdict}


Comparison = Callable[[Ledger], Iterator[Finding]]
"""Finds what else there is, given the ledger."""


def _text(value: Any) -> str:
    return "nothing" if value is None else str(value)


def run(comparison: Comparison | None = None, *, as_json: bool) -> bool:
    """Print each finding, those of a ``comparison`` too, and return whether there is none.

    Raises :class:`LedgerUnavailableError`, and what the comparison raises.
    """
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        count = (_print_json if as_json else _print)(_findings(ledger, comparison))
    if sys.stdout.isatty() and not count and not as_json:
        click.echo("Nothing found.")
    return count == 0


def _findings(ledger: Ledger, comparison: Comparison | None) -> Iterator[Finding]:
    with ledger.snapshot() as check:
        for name in CHECKS:
            for row in check(name):
                yield Finding(*row)
    if comparison:
        yield from comparison(ledger)


def _print(findings: Iterable[Finding]) -> int:
    count = 0
    for finding in findings:
        click.echo(finding)
        count += 1
    return count


def _print_json(findings: Iterable[Finding]) -> int:
    """Print one array, an element at a time: there may be many. It is whole even where trouble ends it."""
    count = 0
    click.echo("[", nl=False)
    try:
        for count, finding in enumerate(findings, 1):
            click.echo(f"{',' if count > 1 else ''}\n{json.dumps(finding.fields())}", nl=False)
    finally:
        click.echo("\n]" if count else "]")
    return count
