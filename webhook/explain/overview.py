"""The state of the whole: what is parked, the last reconciliation, and the credits of each day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from webhook.explain.records import Rows, record, records
from webhook.remedies import REMEDIES

MOST_COUNTED = 1000
"""Parked events of a reason are counted up to here."""


@dataclass(frozen=True)
class Health:
    """The open parked events, and the last reconciliation that finished."""

    oldest_event_id: str | None
    oldest_parked_at: datetime | None
    parked: dict[str, int]
    """Open events by reason. A count ends at :data:`MOST_COUNTED`."""
    reconciled_at: datetime | None
    covered_until: datetime | None
    """Up to here reconciliations left no gap."""
    read_at: datetime

    @property
    def oldest_age(self) -> timedelta | None:
        """How long the oldest open event is parked; never below 0."""
        return max(self.read_at - self.oldest_parked_at, timedelta()) if self.oldest_parked_at else None


@dataclass(frozen=True)
class DailyCredits:
    """The credits of one day (UTC)."""

    day: date
    sold: int = 0
    spent: int = 0
    """Less the credits that failed generations gave back."""
    taken_back: int = 0
    """After refunds and disputes, less what failed refunds and won disputes gave back."""
    adjusted: int = 0
    """Adjustments by operators; below 0 if they took more than they gave."""
    last_delivery_at: datetime | None = None
    """When a delivery of Stripe last wrote a ledger row on this day."""


def load_health(ledger: Rows) -> Health:
    """Return the health from one query; raises :class:`LedgerUnavailableError`."""
    [row] = ledger.rows("console_health", reasons=list(REMEDIES), most=MOST_COUNTED)
    return record(Health, row)


def load_daily_credits(ledger: Rows, first: date, last: date) -> list[DailyCredits]:
    """Return an entry for each day from ``first`` to ``last``; raises :class:`LedgerUnavailableError`."""
    since, until = _midnight(first), _midnight(last + timedelta(days=1))
    found = records(DailyCredits, ledger.rows("console_daily_credits", since=since, until=until))
    by_day = {each.day: each for each in found}
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [by_day.get(day, DailyCredits(day)) for day in days]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
