"""The credits of the last days. Finished days do not change, so a process reads them once in a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cachetools import TTLCache

from webhook.explain.overview import DailyCredits, load_daily_credits
from webhook.explain.records import Rows

DAYS = 30
_FINISHED_SECONDS, _TODAY_SECONDS = 600, 20


class RecentDays:
    """Reads the last :data:`DAYS` days, today included."""

    def __init__(self) -> None:
        self._finished: TTLCache[object, list[DailyCredits]] = TTLCache(1, _FINISHED_SECONDS)
        self._today: TTLCache[object, list[DailyCredits]] = TTLCache(1, _TODAY_SECONDS)

    def load(self, ledger: Rows) -> list[DailyCredits]:
        """Return the days, the oldest first; raises :class:`LedgerUnavailableError`."""
        today = datetime.now(UTC).date()
        finished, current = self._finished.get(today), self._today.get(today)
        if finished is None:
            first, last = today - timedelta(days=DAYS - 1), today - timedelta(days=1)
            finished = self._finished[today] = load_daily_credits(ledger, first, last)
        if current is None:
            current = self._today[today] = load_daily_credits(ledger, today, today)
        return [*finished, *current]
