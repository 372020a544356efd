"""Parked events: an operator discards them, or lists those to retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from webhook.actions.action_log import log_action
from webhook.errors import ExpectedError
from webhook.events.fields import IDENTIFIER
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.ledger.operator import Operator, OperatorLedger


class NotParkedError(ExpectedError):
    """A requested event is not parked; the message names it."""


def discard(event_ids: Sequence[str], operator: Operator, operators: OperatorLedger) -> dict[str, int | None]:
    """Discard all the events, or none, and log each. Return the number of each one's action, ``None`` if it was before.

    Raises :class:`RuleError` or :class:`NotParkedError` if one is not parked, :class:`LedgerUnavailableError` or
    :class:`NotOperatorError`.
    """
    if unknown := {event_id for event_id in event_ids if not IDENTIFIER.fullmatch(event_id)}:
        raise NotParkedError(f"not parked (any more): {', '.join(sorted(unknown))}")
    discarded = operators.discard(event_ids, operator)
    for number in filter(None, discarded.values()):
        log_action("discard", number, operator)
    return discarded


def reopened(ledger: Ledger, event_ids: Sequence[str]) -> list[ParkedEvent]:
    """Return the given events, after putting the discarded ones back on the list.

    Raises :class:`NotParkedError` if one was never parked, or its payload is dropped.
    """
    events = [ledger.parked_event(event_id) if IDENTIFIER.fullmatch(event_id) else None for event_id in event_ids]
    if unknown := [name for name, event in zip(event_ids, events, strict=True) if event is None]:
        raise NotParkedError(f"never parked: {', '.join(sorted(unknown))}")
    known = [event for event in events if event]
    if dropped := [event.id for event in known if event.resolution == "discarded" and event.payload is None]:
        raise NotParkedError(
            f"discarded, and the payload is dropped: {', '.join(sorted(dropped))}; "
            "webhook reconcile reads the sale again"
        )
    return [_reopened(ledger, event) for event in known]


def _reopened(ledger: Ledger, event: ParkedEvent) -> ParkedEvent:
    """Put a discarded event back on the list, and return it as it is then."""
    is_open = event.resolution == "discarded" and ledger.reopen(event)
    return replace(event, resolution=None) if is_open else event
