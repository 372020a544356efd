"""``webhook retry``: settle parked events that can be settled now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import click

from webhook.commands.output import print_above_bar, progress_bar
from webhook.commands.parked import NotParkedError
from webhook.events.fields import IDENTIFIER
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Entry, Ledger, Outcome, ParkedEvent
from webhook.retry import Retry
from webhook.settings import read_database_url, read_event_scope, read_lookup_settings
from webhook.stripe_api.client import stripe_api
from webhook.stripe_api.errors import StripeUnavailableError


def retry(event_ids: Sequence[str]) -> bool:
    """Settle the given events, by default all parked ones, and print the outcome of each.

    Returns whether none of them is parked any more. If Stripe or the database fails for one event, the others are
    still tried, and the error is raised at the end.
    """
    scope, stripe = read_event_scope(), stripe_api(read_lookup_settings())
    with closing(Ledger(read_database_url())) as ledger:
        events = _requested(ledger, event_ids) if event_ids else ledger.parked_events()
        settled, failure = _retry_each(Retry(ledger, scope, stripe), events)
    click.echo(f"{settled} settled, {len(events) - settled} still parked", err=True)
    if settled < len(events) and stripe is None:
        click.echo("Without STRIPE_API_KEY, corrections of metadata and prices at Stripe are not read.", err=True)
    if failure:
        raise failure
    return settled == len(events)


def _requested(ledger: Ledger, event_ids: Sequence[str]) -> list[ParkedEvent]:
    """Return the given events; raises :class:`NotParkedError` if one was never parked, or its payload is dropped."""
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


def _retry_each(retry: Retry, events: Sequence[ParkedEvent]) -> tuple[int, Exception | None]:
    """Return how many events are settled now, and the last error."""
    settled, failure = 0, None
    with progress_bar(events) as bar:
        for listed in bar:
            try:
                outcome = retry.settle(retry.ledger.parked_event(listed.id) or listed)
            except (LedgerUnavailableError, StripeUnavailableError) as error:
                failure = error
                outcome = Outcome("parked", listed.reason)
            settled += outcome.name != "parked"
            note = _settled_by(retry.ledger, listed) if outcome.name == "duplicate" else outcome.reason or ""
            print_above_bar(f"{listed.id}\t{outcome.name}\t{note}".rstrip())
    return settled, failure


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
