"""Bulk retry: the events that were parked before it was confirmed, at most 1,000, in steps of some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from webhook.actions.retry import Retried, retry_event
from webhook.explain.parked_list import Position, after_position
from webhook.explain.records import ParkedEvent, Rows, records
from webhook.retry import Retry

MOST_EVENTS = 1000
"""Events that one bulk retry tries."""

STEP_SECONDS = 5.0
"""After this time a step begins no further event."""

_SLICE = 20


@dataclass(frozen=True)
class BulkRetry:
    """Which events are retried, how many were counted at the confirmation, and how far the retry has come."""

    reason: str | None
    until: datetime
    """Events that were parked later are left out."""
    events: int
    """The exact number when it was confirmed, at most :data:`MOST_EVENTS`."""
    after: Position | None = None
    """The last event that was tried."""
    tried: int = 0
    settled: int = 0


@dataclass(frozen=True)
class BulkStep:
    """The outcomes of one step, and the bulk retry as it continues."""

    retried: tuple[Retried, ...]
    bulk: BulkRetry
    left: int
    """The events that are still to be tried."""


def count_events(rows: Rows, reason: str | None) -> BulkRetry:
    """Return the bulk retry of the events that are parked now; raises :class:`LedgerUnavailableError`."""
    [row] = rows.rows("console_count_parked", reason=reason, until=None, most=MOST_EVENTS, **after_position(None))
    return BulkRetry(reason, row["until"], row["events"])


def run_step(
    bulk: BulkRetry,
    retry: Retry,
    rows: Rows,
    *,
    seconds: float = STEP_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> BulkStep:
    """Retry events until ``seconds`` are over, none is left, or Stripe or the database fails.

    A step tries at least one event. Raises :class:`LedgerUnavailableError` if the events cannot be read.
    """
    end, retried = clock() + seconds, list[Retried]()
    while (not retried or clock() < end) and (events := next_events(bulk, rows)):
        for event in events:
            retried.append(retry_event(retry, event))
            bulk = _continued(bulk, event, retried[-1])
            if clock() >= end or retried[-1].error:
                break
        if retried[-1].error:
            break
    return BulkStep(tuple(retried), bulk, _left(bulk, rows))


def _continued(bulk: BulkRetry, event: ParkedEvent, retried: Retried) -> BulkRetry:
    return BulkRetry(
        bulk.reason,
        bulk.until,
        bulk.events,
        after=Position(event.parked_at, event.id),
        tried=bulk.tried + 1,
        settled=bulk.settled + retried.is_settled,
    )


def next_events(bulk: BulkRetry, rows: Rows) -> Sequence[ParkedEvent]:
    """Return the next events to retry, without their payloads; raises :class:`LedgerUnavailableError`."""
    size = min(_SLICE, bulk.events - bulk.tried)
    if size <= 0:
        return ()
    parameters = {"reason": bulk.reason, "until": bulk.until, **after_position(bulk.after)}
    return records(ParkedEvent, rows.rows("console_parked", **parameters, page_size=size))


def _left(bulk: BulkRetry, rows: Rows) -> int:
    parameters = {"reason": bulk.reason, "until": bulk.until, **after_position(bulk.after)}
    most = max(bulk.events - bulk.tried, 0)
    [row] = rows.rows("console_count_parked", **parameters, most=most)
    return int(row["events"])
