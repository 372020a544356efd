"""Bulk retry: the events that are parked now, in steps of five seconds with a Continue button."""

from __future__ import annotations

import re
from datetime import datetime

from flask import Response, request

from webhook.actions.bulk_retry import MOST_EVENTS, STEP_SECONDS, BulkRetry, count_events, next_events, run_step
from webhook.console.console import Console
from webhook.console.content.forms import FieldError, Form
from webhook.console.login import OPERATOR
from webhook.console.pages.parked import outcome_of, retry_of
from webhook.explain.parked_list import Position, read_time
from webhook.remedies import REMEDIES

MOST_OUTCOMES = 100
"""Outcomes that a page lists."""
_NUMBER = re.compile(r"[0-9]{1,4}", re.ASCII)


def register(console: Console) -> None:
    """Add the page and the action."""

    @console.view("/console/retry-all", role=OPERATOR)
    def retry_all_form() -> Response:
        reason = _reason(request.args.get("reason"))
        bulk = count_events(console.ledger, reason)
        return console.page(
            "pages/bulk.html",
            bulk=bulk,
            step=None,
            left=bulk.events,
            most=MOST_EVENTS,
            outcomes=[],
            first=next_events(bulk, console.ledger),
        )

    @console.action("/console/retry-all")
    def retry_all() -> Response:
        step = run_step(read_bulk(request.form), retry_of(console), console.worker_ledger, seconds=STEP_SECONDS)
        shown = sorted(step.retried, key=lambda each: each.is_settled)[:MOST_OUTCOMES]  # what stays parked first
        outcomes = [(each.event_id, each.is_settled, outcome_of(each)) for each in shown]
        return console.page(
            "pages/bulk.html",
            bulk=step.bulk,
            step=step,
            left=step.left,
            most=MOST_EVENTS,
            outcomes=outcomes,
            first=(),
        )


def read_bulk(form: Form) -> BulkRetry:
    """Return the bulk retry of a form; raises :class:`FieldError`."""
    after = Position.parse(form["after"]) if form.get("after") else None
    if form.get("after") and after is None:
        raise FieldError("The form is damaged: open it again.")
    numbers = [_number(form, name) for name in ("events", "tried", "settled")]
    return BulkRetry(_reason(form.get("reason")), _time(form), min(numbers[0], MOST_EVENTS), after, *numbers[1:])


def _reason(text: str | None) -> str | None:
    return next((each for each in REMEDIES if each == text), None)


def _number(form: Form, name: str) -> int:
    value = form.get(name, "")
    if not _NUMBER.fullmatch(value):
        raise FieldError("The form is damaged: open it again.")
    return int(value)


def _time(form: Form) -> datetime:
    at = read_time(form.get("until", ""))
    if at is None:
        raise FieldError("The form is damaged: open it again.")
    return at
