"""``webhook parked``, ``retry`` and ``discard``: events that could not be settled."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from webhook.commands.operator import log_action, operator_ledger
from webhook.commands.output import aligned, print_above_bar, progress_bar
from webhook.delivery import settle
from webhook.errors import ExpectedError
from webhook.events.event import EventScope, read_event
from webhook.events.fields import IDENTIFIER
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome, ParkedEvent
from webhook.ledger.operator import Operator
from webhook.settings import read_database_url, read_event_scope, read_lookup_settings
from webhook.stripe_api.client import StripeAPI, stripe_api
from webhook.stripe_api.errors import StripeUnavailableError

REMEDIES = {
    "wrong_mode": "set STRIPE_LIVEMODE to the mode of the endpoint, or correct the endpoint; then retry",
    "unreadable": "upgrade the worker; then retry",
    "missing_api_key": "set STRIPE_API_KEY (a restricted read-only key is enough); then retry",
    "missing_object": "Stripe does not have an object that the event names: set STRIPE_API_KEY to a key of the account "
    "or sandbox that sent it; then retry. If the object was deleted, discard the event",
    "missing_user": "set metadata.user_id or client_reference_id on new sales; "
    "grant this sale by hand, see docs/how-to/parked-events.md",
    "ambiguous_customer": "two users claim this Stripe customer: set metadata.user_id on the subscription; then retry",
    "missing_credits": "set metadata.credits on new sales, or on the price with STRIPE_API_KEY set; then retry",
    "invalid_credits": "metadata.credits is not a whole number from 1 to 1000000000; "
    "grant this sale by hand, see docs/how-to/parked-events.md",
    "unknown_user": "the user in the event has no row in public.users: create it; then retry",
}
"""The advice for each reason."""


SALE_WITHOUT_EVENT = "billing.sale"
"""The type of an entry that stands for a sale: its events were settled before it lost its user."""


class NotParkedError(ExpectedError):
    """A requested event is not parked; the message names it."""


def show(event_id: str, *, as_json: bool) -> None:
    """Print one event with its payload or its resolution.

    Raises :class:`NotParkedError` if it was never parked, or :class:`LedgerUnavailableError`.
    """
    with _ledger() as ledger:
        event = ledger.parked_event(event_id) if IDENTIFIER.fullmatch(event_id) else None
    if event is None:
        raise NotParkedError(f"never parked: {event_id}")
    if as_json:
        # The payload is stored as JSON text. To parse and print it again could change its numbers. JSON strings contain
        # no line break.
        payload = (event.payload or "null").replace("\r", " ").replace("\n", " ")
        click.echo(f'{json.dumps(_fields(event))[:-1]}, "payload": {payload}}}')
    else:
        _describe(event)


def show_all(*, as_json: bool) -> None:
    """Print a table; on a pipe, one line per event: id, reason and age, separated by tabs.

    ``as_json`` prints one JSON object per event and line, without payloads.
    """
    with _ledger() as ledger:
        events = ledger.parked_events()
    if as_json:
        lines = [json.dumps(_fields(event)) for event in events]
    elif sys.stdout.isatty():
        lines = _table(events)
    else:
        lines = [f"{event.id}\t{event.reason}\t{_age(event)}" for event in events]
    for line in lines:
        click.echo(line)


def retry(event_ids: Sequence[str]) -> bool:
    """Settle the given events, by default all parked ones, and print the outcome of each.

    Returns whether none of them is parked any more. If Stripe or the database fails for one event, the others are
    still tried, and the error is raised at the end.
    """
    scope, stripe = read_event_scope(), stripe_api(read_lookup_settings())
    settled, failure = 0, None
    with _ledger() as ledger:
        events = _parked_events(ledger, event_ids)
        with progress_bar(events) as bar:
            for event in bar:
                try:
                    outcome = _settle(event.id, ledger, scope, stripe)
                except (LedgerUnavailableError, StripeUnavailableError) as error:
                    failure = error
                    outcome = Outcome("parked", event.reason)
                settled += outcome.name != "parked"
                print_above_bar(f"{event.id}\t{outcome.name}\t{outcome.reason or ''}".rstrip())
    click.echo(f"{settled} settled, {len(events) - settled} still parked", err=True)
    if failure:
        raise failure
    return settled == len(events)


def discard(event_ids: Sequence[str], operator: Operator) -> None:
    """Discard all the events, or none; raises :class:`RuleError` or :class:`NotParkedError` if one is not parked."""
    _reject_missing({event_id for event_id in event_ids if not IDENTIFIER.fullmatch(event_id)})
    with operator_ledger() as ledger:
        discarded = ledger.discard(event_ids, operator)
    for event_id, number in discarded.items():
        if number is not None:
            log_action("discard", number, operator)
        click.echo(f"{event_id}\tdiscarded")


def _ledger() -> closing[Ledger]:
    return closing(Ledger(read_database_url()))


def _parked_events(ledger: Ledger, event_ids: Sequence[str]) -> list[ParkedEvent]:
    """Return the parked events with the given ids, by default all; raises :class:`NotParkedError`."""
    events, requested = ledger.parked_events(), set(event_ids)
    _reject_missing(requested - {event.id for event in events})
    return [event for event in events if not requested or event.id in requested]


def _reject_missing(event_ids: set[str]) -> None:
    if event_ids:
        raise NotParkedError(f"not parked (any more): {', '.join(sorted(event_ids))}")


def _settle(event_id: str, ledger: Ledger, scope: EventScope, stripe: StripeAPI | None) -> Outcome:
    event = ledger.parked_event(event_id)
    if event is None or event.resolution or event.payload is None:
        # Meanwhile another event of its sale settled it, or another operator resolved it.
        return Outcome("duplicate")
    if event.type == SALE_WITHOUT_EVENT and event.payment_id:
        reason = ledger.settle_parked_sale(event.payment_id)
        return Outcome("parked", reason) if reason else Outcome("recorded")
    outcome = settle(read_event(event.payload), event.payload, ledger, scope, stripe)
    if outcome.name == "ignored" and outcome.missing_setting:
        # The settings were different when it was parked. The missing one could show that it is about credits.
        return Outcome("parked", f"{outcome.reason}: set {outcome.missing_setting}")
    if outcome.name == "ignored":
        ledger.resolve(event.id)
    return outcome


def _table(events: Sequence[ParkedEvent]) -> list[str]:
    if not events:
        return ["Nothing is parked."]
    rows = [("EVENT", "TYPE", "AGE", "REASON"), *((e.id, e.type, _age(e), e.reason) for e in events)]
    remedies = [f"{reason}: {REMEDIES[reason]}" for reason in sorted({event.reason for event in events})]
    return [*aligned(rows), "", *remedies]


def _describe(event: ParkedEvent) -> None:
    rows = [
        ("event", event.id),
        ("type", event.type),
        ("reason", event.reason),
        ("age", f"{_age(event)}, since {event.parked_at:%Y-%m-%d %H:%M:%S %Z}"),
    ]
    if event.resolution:
        rows.append(("resolved", f"{event.resolution} {event.resolved_at:%Y-%m-%d %H:%M:%S %Z}"))
        if event.resolution == "discarded":
            rows += [("by", str(event.discarded_by)), ("why", str(event.discard_reason))]
    else:
        rows.append(("to do", REMEDIES[event.reason]))
    for label, value in rows:
        click.echo(f"{label:<9}{value}")
    if event.payload is not None:
        click.echo(json.dumps(json.loads(event.payload), indent=2))


def _fields(event: ParkedEvent) -> dict[str, Any]:
    """Return an event as ``--json`` shows it, without its payload."""
    return {
        "event_id": event.id,
        "event_type": event.type,
        "reason": event.reason,
        "payment_id": event.payment_id,
        "parked_at": event.parked_at.isoformat(),
        "age_seconds": _age_seconds(event),
        "what_to_do": None if event.resolution else REMEDIES[event.reason],
        "resolution": event.resolution,
        "resolved_at": event.resolved_at and event.resolved_at.isoformat(),
        "discarded_by": event.discarded_by,
        "discard_reason": event.discard_reason,
    }


def _age_seconds(event: ParkedEvent) -> int:
    """Return whole seconds, never below 0: the clock of the database may be ahead."""
    return max(datetime.now(UTC) - event.parked_at, timedelta()) // timedelta(seconds=1)


def _age(event: ParkedEvent) -> str:
    """Return the age in its two largest units, such as ``3d 4h``."""
    seconds = _age_seconds(event)
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    first = next((index for index, (size, _) in enumerate(units) if seconds >= size), len(units) - 1)
    words = []
    for size, unit in units[first : first + 2]:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)
