"""``webhook retry``: settle parked events that can be settled now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import click

from webhook.actions.parked import reopened
from webhook.actions.retry import retry_event
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.output import print_above_bar, progress_bar
from webhook.retry import Retry
from webhook.settings import read_database_url, read_event_scope, read_lookup_settings
from webhook.stripe_api.client import stripe_api


def retry(event_ids: Sequence[str]) -> bool:
    """Settle the given events, by default all parked ones, and print the outcome of each.

    Returns whether none of them is parked any more. If Stripe or the database fails for one event, the others are
    still tried, and the error is raised at the end.
    """
    scope, stripe = read_event_scope(), stripe_api(read_lookup_settings())
    with closing(Ledger(read_database_url())) as ledger:
        events = reopened(ledger, event_ids) if event_ids else ledger.parked_events()
        settled, failure = _retry_each(Retry(ledger, scope, stripe), events)
    click.echo(f"{settled} settled, {len(events) - settled} still parked", err=True)
    if settled < len(events) and stripe is None:
        click.echo("Without STRIPE_API_KEY, corrections of metadata and prices at Stripe are not read.", err=True)
    if failure:
        raise failure
    return settled == len(events)


def _retry_each(retry: Retry, events: Sequence[ParkedEvent]) -> tuple[int, Exception | None]:
    """Return how many events are settled now, and the last error."""
    settled, failure = 0, None
    with progress_bar(events) as bar:
        for listed in bar:
            retried = retry_event(retry, listed)
            failure = retried.error or failure
            settled += retried.is_settled
            print_above_bar(f"{listed.id}\t{retried.outcome.name}\t{retried.note}".rstrip())
    return settled, failure
