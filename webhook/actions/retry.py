"""Retries: parked events that can be settled now are settled."""

from __future__ import annotations

from dataclasses import dataclass

from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Entry, Ledger, Outcome, ParkedEvent
from webhook.retry import Retry
from webhook.stripe_api.errors import StripeUnavailableError


@dataclass(frozen=True)
class Retried:
    """The outcome of one retry. The event stays parked after an error."""

    event_id: str
    outcome: Outcome
    note: str
    """The reason of the outcome, or which ledger rows settled the sale."""
    error: LedgerUnavailableError | StripeUnavailableError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the event is not parked any more."""
        return self.outcome.name != "parked"


def retry_event(retry: Retry, listed: ParkedEvent) -> Retried:
    """Retry an event of a list, and return the outcome. An error of Stripe or of the database is part of it.

    Raises :class:`LedgerUnavailableError` if the event settled and its ledger rows cannot be read.
    """
    error = None
    try:
        outcome = retry.settle(retry.ledger.parked_event(listed.id) or listed)
    except (LedgerUnavailableError, StripeUnavailableError) as failure:
        error = failure
        outcome = Outcome("parked", listed.reason)
    note = _settled_by(retry.ledger, listed) if outcome.name == "duplicate" else outcome.reason or ""
    return Retried(listed.id, outcome, note, error)


def _settled_by(ledger: Ledger, event: ParkedEvent) -> str:
    """Return which ledger rows settled the event's sale, and whose they are."""
    entries = ledger.entries_of(event.payment_id) if event.payment_id else []
    if not entries:
        return "settled"
    return "settled by " + ", ".join(map(_described, entries))


def _described(entry: Entry) -> str:
    cause = f"event {entry.event_id}" if entry.event_id else "entered by hand"
    return (
        f"{entry.stripe_id or 'a row'}: {entry.amount:+} for {entry.user_id} on {entry.created_at:%Y-%m-%d} ({cause})"
    )
