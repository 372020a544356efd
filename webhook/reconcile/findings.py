"""What a run reports as it goes: a command prints it, and the console keeps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from webhook.ledger.ledger import ParkedEvent
from webhook.reconcile.pages import Page, Source
from webhook.reconcile.report import Item


class Findings(Protocol):
    """Takes what a run finds, as :class:`webhook.reconcile.report.Report` does."""

    skipped: int
    """Sales paid before the window that the ledger does not know."""
    ignored_invoices: Counter[str]
    """Invoices paid in the window that grant nothing, by reason."""

    def add(self, item: Item) -> None:
        """Take an object that was missing, was parked now, or could not be recorded."""

    def stays(self, item_id: str, state: str) -> None:
        """Take an object that cannot be settled and is not parked now: see :meth:`Ledger.parked_already`."""


class NamedFindings(Findings, Protocol):
    """Takes what a run over named objects finds, as :class:`webhook.reconcile.named_report.NamedReport` does."""

    is_discarded: bool
    """Whether an operator discarded an event without which a sale cannot be settled."""

    def begin(self, sources: Sequence[Source]) -> None:
        """Take the names that will be read."""

    def read(self, page: Page) -> None:
        """Take the objects that belong to a name."""

    def end(self, source: str, error: Exception | None) -> None:
        """Take the end of a name, or the error that ended it."""

    def note(self, name: str, text: str) -> None:
        """Take the reason why nothing is to be recorded for a name."""

    def remains(self, event: ParkedEvent) -> None:
        """Take an event of the sale that is parked, or was discarded."""
