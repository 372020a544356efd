"""``webhook parked`` and ``webhook retry``: the events that wait for an operator."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import click

from webhook.deliveries import read_event, settle
from webhook.ledger import Ledger, LedgerUnavailable, Outcome, ParkedEvent
from webhook.settings import read_database_url, read_guards, read_stripe_settings
from webhook.stripe_api import StripeUnavailable, stripe_api

REMEDIES = {
    "wrong_mode": "set STRIPE_LIVEMODE to the endpoint's mode, or fix the endpoint; then retry",
    "unreadable": "upgrade the worker; then retry",
    "missing_api_key": "set STRIPE_API_KEY (a restricted read-only key is enough); then retry",
    "missing_user": "set metadata.user_id or client_reference_id where you sell; grant this one by hand (README)",
    "ambiguous_customer": "two users claim this Stripe customer: set metadata.user_id on the subscription; then retry",
    "missing_credits": "set metadata.credits where you sell, or on the price with STRIPE_API_KEY set; then retry",
    "invalid_credits": "metadata.credits is not a whole number from 1 to 1000000000; grant this one by hand (README)",
    "unknown_user": "the user named has no row in public.users; make it, then retry",
}
"""What to do about each reason."""


class NotParked(Exception):  # noqa: N818
    """An event that was asked for does not wait; the message names it."""


def show(event_id: str) -> None:
    """Print one event whole; raises :class:`NotParked` or :class:`LedgerUnavailable`."""
    [event] = _waiting([event_id])
    _describe(event)


def show_all() -> None:
    """Print a table, or on a pipe a line for each event: id, reason and age, separated by tabs."""
    events = _waiting()
    if sys.stdout.isatty():
        _tabulate(events)
    else:
        for event in events:
            click.echo(f"{event.id}\t{event.reason}\t{_age(event)}")


def retry(event_ids: Sequence[str]) -> None:
    """Settle what can be settled now, of all events or of those named, and print what became of each.

    One that meets trouble does not keep the others waiting: it is raised at the end.
    """
    guards, stripe = read_guards(), stripe_api(read_stripe_settings())
    events = _waiting(event_ids)
    settled, trouble = 0, None
    with _ledger() as ledger:
        for event in events:
            try:
                outcome = settle(read_event(event.payload), event.payload, ledger, guards, stripe)
            except (LedgerUnavailable, StripeUnavailable) as error:
                trouble = error
                outcome = Outcome("parked", event.reason)
            if outcome.name == "ignored":
                ledger.resolve(event.id)
            settled += outcome.name != "parked"
            click.echo(f"{event.id}\t{outcome.name}\t{outcome.reason or ''}".rstrip())
    click.echo(f"{settled} settled, {len(events) - settled} still parked", err=True)
    if trouble:
        raise trouble


def _ledger() -> closing[Ledger]:
    return closing(Ledger(read_database_url()))


def _waiting(event_ids: Sequence[str] = ()) -> list[ParkedEvent]:
    with _ledger() as ledger:
        events = ledger.parked_events(event_ids)
    missing = set(event_ids) - {event.id for event in events}
    if missing:
        raise NotParked(f"not parked (any more): {', '.join(sorted(missing))}")
    return events


def _tabulate(events: Sequence[ParkedEvent]) -> None:
    if not events:
        click.echo("Nothing is parked.")
        return
    rows = [("EVENT", "TYPE", "AGE", "REASON"), *((e.id, e.type, _age(e), e.reason) for e in events)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo()
    for reason in sorted({event.reason for event in events}):
        click.echo(f"{reason}: {REMEDIES[reason]}")


def _describe(event: ParkedEvent) -> None:
    click.echo(f"event    {event.id}")
    click.echo(f"type     {event.type}")
    click.echo(f"reason   {event.reason}")
    click.echo(f"age      {_age(event)}, since {event.parked_at:%Y-%m-%d %H:%M:%S %Z}")
    click.echo(f"to do    {REMEDIES[event.reason]}")
    click.echo(json.dumps(json.loads(event.payload), indent=2))


def _age(event: ParkedEvent) -> str:
    """Return the time since in its two largest units, such as ``3d 4h``."""
    seconds = max(datetime.now(UTC) - event.parked_at, timedelta()) // timedelta(seconds=1)
    parts = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    first = next((index for index, (size, _) in enumerate(parts) if seconds >= size), len(parts) - 1)
    shown = parts[first : first + 2]
    words = []
    for size, unit in shown:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)
