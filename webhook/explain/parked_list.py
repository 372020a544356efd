"""Pages of parked events, for lists that are read from the first event to the last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from webhook.events.fields import IDENTIFIER
from webhook.explain.records import ParkedEvent, Rows, records

PAGE_SIZE = 100
"""Events of a page."""

State = Literal["open", "discarded"]


@dataclass(frozen=True)
class Position:
    """A place in a list of events: after the event that was parked (or discarded) at this time."""

    at: datetime
    event_id: str

    def __str__(self) -> str:
        """Return text that :meth:`parse` reads, for a URL."""
        return f"{self.at.isoformat()}_{self.event_id}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position; ``None`` if the text is none."""
        time, _, event_id = text.partition("_")
        if not IDENTIFIER.fullmatch(event_id):
            return None
        at = read_time(time)
        return cls(at, event_id) if at else None


def read_time(text: str) -> datetime | None:
    """Return a time with a zone as UTC; ``None`` if the text is none. Postgres rejects zones that Python reads."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class ParkedPage:
    """A page of events without payloads."""

    events: tuple[ParkedEvent, ...]
    next: Position | None
    """Where the next page begins; ``None`` on the last one."""


def load_parked(
    ledger: Rows, state: State = "open", reason: str | None = None, after: Position | None = None
) -> ParkedPage:
    """Return a page: open events, oldest first, or those discarded in the last 30 days, latest first.

    ``reason`` filters open events. Raises :class:`LedgerUnavailableError`.
    """
    name, filters = (
        ("console_parked", {"reason": reason, "until": None}) if state == "open" else ("console_discarded", {})
    )
    rows = records(ParkedEvent, ledger.rows(name, **filters, **after_position(after), page_size=PAGE_SIZE + 1))
    events = rows[:PAGE_SIZE]
    return ParkedPage(events, _position(events[-1], state) if len(rows) > PAGE_SIZE else None)


def after_position(after: Position | None) -> dict[str, Any]:
    """Return the parameters of a query that begin a page after an event."""
    return {"after_time": after and after.at, "after_id": after and after.event_id}


def _position(event: ParkedEvent, state: State) -> Position:
    at = event.parked_at if state == "open" else event.resolved_at or event.parked_at
    return Position(at, event.id)
