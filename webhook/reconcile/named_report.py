"""The report of a reconciliation of named objects: as for a window, with what stays open and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from webhook.ledger.ledger import ParkedEvent
from webhook.reconcile.report import MISSING, NOTHING_MISSING, Report
from webhook.remedies import remedy


class NamedReport(Report):
    """Keeps the open events and a note for each name, because few objects are named."""

    def __init__(self, names: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
        super().__init__({"ids": list(names), "dry_run": dry_run}, as_json=as_json)
        self.is_discarded = False
        """Whether an operator discarded an event without which a sale cannot be settled."""
        self._parked: dict[str, ParkedEvent] = {}
        self._notes: dict[str, str] = {}

    def stays(self, item_id: str, state: str) -> None:
        """Count an object that cannot be settled and is not parked now."""
        super().stays(item_id, state)
        self.is_discarded = self.is_discarded or state == "discarded"

    def remains(self, event: ParkedEvent) -> None:
        """Note an event of the sale that is parked, or was discarded."""
        self._parked[event.id] = event

    def note(self, name: str, text: str) -> None:
        """Note why nothing is to be recorded for a named object."""
        self._notes[name] = text

    @property
    def exit_code(self) -> int:
        """The command's exit code: :data:`MISSING` also if an event of the sale stays parked."""
        code = super().exit_code
        return MISSING if code == NOTHING_MISSING and self._parked else code

    def _summary(self) -> dict[str, Any]:
        parked = [
            {"event_id": event.id, "reason": event.reason, "resolution": event.resolution, "what_to_do": _advice(event)}
            for event in self._parked.values()
        ]
        return super()._summary() | {"parked_events": parked, "notes": self._notes}

    def _conclusions(self) -> list[str]:
        notes = [f"{name}: {text}" for name, text in self._notes.items()]
        parked = [
            f"{event.id}: {event.resolution or f'parked as {event.reason}'}: {_advice(event)}"
            for event in self._parked.values()
        ]
        return [*notes, *parked, *super()._conclusions()]

    def _not_finished(self) -> list[str]:
        lines = [str(self._error)] if self._error else []
        return lines + [f"{name}: {error}" for name, error in self._source_errors().items()]


def _advice(event: ParkedEvent) -> str:
    if event.resolution == "discarded":
        return f"run `webhook retry {event.id}` to put it back on the list"
    return remedy(event, event.id)
