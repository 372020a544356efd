"""The first page: the search, the state of the whole, and a chart of the last 30 days."""

from __future__ import annotations

from flask import Response

from webhook.console.console import Console
from webhook.console.content import chart
from webhook.console.content.recent_days import RecentDays
from webhook.console.reading import PageTimeoutError
from webhook.explain.overview import MOST_COUNTED, DailyCredits, Health, load_health
from webhook.explain.wording import age
from webhook.ledger.errors import LedgerRefusedError


def register(console: Console) -> None:
    """Add the page."""
    recent_days = RecentDays()

    @console.view("/console")
    def home() -> Response:
        health = load_health(console.ledger)
        days = _days(console, recent_days)
        return console.page(
            "pages/home.html",
            health=health,
            oldest_age=age(health.oldest_age) if health.oldest_age is not None else None,
            parked_total=total_of(health),
            days=days,
            chart=chart.draw(days) if days else None,
            size=chart.SIZE,
            last_delivery_at=max(filter(None, (each.last_delivery_at for each in days or ())), default=None),
            max_credits=console.max_credits,
        )


def total_of(health: Health) -> str:
    """Return the number of open events. Counts of reasons are capped, so the total is then a lower bound."""
    total = sum(health.parked.values())
    return f"more than {total - 1:,}" if MOST_COUNTED in health.parked.values() else f"{total:,}"


def _days(console: Console, recent_days: RecentDays) -> list[DailyCredits] | None:
    """Return the last days; ``None`` if reading them took too long: the search must work nevertheless."""
    try:
        return recent_days.load(console.ledger)
    except (PageTimeoutError, LedgerRefusedError):
        return None
