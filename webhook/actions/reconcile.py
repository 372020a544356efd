"""Reconcile one payment: read it and all that belongs to it from Stripe, and record what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from webhook.events.event import EventScope
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.reconcile.named import NamedObjects
from webhook.reconcile.pages import Page, Source
from webhook.reconcile.report import Item
from webhook.stripe_api.bulk import StripeReader

RETRY_SECONDS = 1.0
"""How long a call of the database is retried: a person waits for the page."""


@dataclass
class Reconciliation:
    """What a run over one payment found."""

    items: list[Item] = field(default_factory=list)
    parked: dict[str, ParkedEvent] = field(default_factory=dict)
    """Events of the sale that are parked, or were discarded."""
    notes: list[str] = field(default_factory=list)
    """Why nothing is to be recorded."""
    skipped: int = 0
    ignored_invoices: Counter[str] = field(default_factory=Counter)
    is_discarded: bool = False
    payment_ids: list[str] = field(default_factory=list)
    """The payments of the sales that were read."""

    def begin(self, sources: Sequence[Source]) -> None:
        """Take no notice: there is one name."""

    def read(self, page: Page) -> None:
        """Keep the payments."""
        self.payment_ids += [each.payment_id for each in page.objects if each.payment_id]

    def end(self, source: str, error: Exception | None) -> None:
        """Take no notice: an error is raised."""

    def add(self, item: Item) -> None:
        """Keep what was missing, was parked now, or could not be recorded."""
        self.items.append(item)

    def stays(self, item_id: str, state: str) -> None:
        """Note whether an operator discarded an event of the sale."""
        del item_id
        self.is_discarded = self.is_discarded or state == "discarded"

    def note(self, name: str, text: str) -> None:
        """Keep why nothing is to be recorded."""
        del name
        self.notes.append(text)

    def remains(self, event: ParkedEvent) -> None:
        """Keep an event that is parked, or was discarded."""
        self.parked[event.id] = event

    @property
    def sentence(self) -> str:
        """What was done, for people."""
        said = [f"{each.id} could not be recorded: {each.reason}" for each in self.items if each.status == "failed"]
        missing = [each for each in self.items if each.status == "missing"]
        if missing:
            moved = sum(each.credits for each in missing)
            said.append(f"{', '.join(each.id for each in missing)} was missing and is recorded now: {moved:+,} credits")
        said += [f"{event.id} is {event.resolution or f'parked as {event.reason}'}" for event in self.parked.values()]
        said += [each for each in self.notes if not said]
        return f"{'; '.join(said) or 'Nothing was missing'}."


def reconcile(name: str, ledger: Ledger, stripe: StripeReader, scope: EventScope) -> Reconciliation:
    """Reconcile the payment of a named object, however old.

    Raises :class:`NamedObjectError`, :class:`StripeUnavailableError` or :class:`LedgerUnavailableError`.
    """
    found = Reconciliation()
    NamedObjects(
        ledger, stripe, scope, dry_run=False, report=found, names=[name], retry_seconds=RETRY_SECONDS
    ).run_in_turn()
    return found
