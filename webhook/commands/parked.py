"""``webhook parked``, ``retry`` and ``discard``: the events that wait for an operator."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from webhook.commands.output import aligned
from webhook.delivery import settle
from webhook.events.event import EventScope, read_event
from webhook.events.fields import IDENTIFIER
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome, ParkedEvent
from webhook.settings import read_database_url, read_event_scope, read_stripe_settings
from webhook.stripe_api.client import StripeAPI, stripe_api
from webhook.stripe_api.errors import StripeUnavailableError

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


class NotParkedError(Exception):
    """An event that was asked for does not wait; the message names it."""


def show(event_id: str, *, as_json: bool) -> None:
    """Print one event whole, how its waiting ended too; raises :class:`NotParkedError` or :class:`LedgerUnavailableError`."""
    with _ledger() as ledger:
        event = ledger.parked_event(event_id) if IDENTIFIER.fullmatch(event_id) else None
    if event is None:
        raise NotParkedError(f"never parked: {event_id}")
    if as_json:
        # The payload as it is stored, which is JSON: parsed and printed again, its numbers could change.
        click.echo(f'{json.dumps(_fields(event))[:-1]}, "payload": {event.payload or "null"}}}')
    else:
        _describe(event)


def show_all(*, as_json: bool) -> None:
    """Print a table, or on a pipe a line for each event: id, reason and age, separated by tabs."""
    with _ledger() as ledger:
        events = ledger.parked_events()
    if as_json:
        click.echo(json.dumps([_fields(event) for event in events], indent=2))
    elif sys.stdout.isatty():
        _tabulate(events)
    else:
        for event in events:
            click.echo(f"{event.id}\t{event.reason}\t{_age(event)}")


def retry(event_ids: Sequence[str]) -> bool:
    """Settle what can be settled now, of all events or of those named, and print what became of each.

    Returns whether none is parked any more. One that meets trouble does not keep the others waiting: it is raised at
    the end.
    """
    scope, stripe = read_event_scope(), stripe_api(read_stripe_settings())
    settled, trouble = 0, None
    lines: list[str] = []
    # A terminal sees the bar first: lines would tear it.
    say = lines.append if sys.stdout.isatty() else click.echo
    with _ledger() as ledger:
        waiting = _waiting(ledger, event_ids)
        with click.progressbar(waiting, file=sys.stderr, show_pos=True, hidden=not sys.stderr.isatty()) as events:
            for event in events:
                try:
                    outcome = _settle(event.id, ledger, scope, stripe)
                except (LedgerUnavailableError, StripeUnavailableError) as error:
                    trouble = error
                    outcome = Outcome("parked", event.reason)
                settled += outcome.name != "parked"
                say(f"{event.id}\t{outcome.name}\t{outcome.reason or ''}".rstrip())
    for line in lines:
        click.echo(line)
    click.echo(f"{settled} settled, {len(waiting) - settled} still parked", err=True)
    if trouble:
        raise trouble
    return settled == len(waiting)


def discard(event_ids: Sequence[str], why: str, by: str | None) -> None:
    """End the waiting of events that are not to be settled: of all, or raise :class:`NotParkedError`."""
    with _ledger() as ledger:
        _waiting(ledger, event_ids)
        discarded = ledger.discard(event_ids, by or _operator(), why)
    for event_id in discarded:
        click.echo(f"{event_id}\tdiscarded")
    _refuse_missing(set(event_ids) - set(discarded))


def _ledger() -> closing[Ledger]:
    return closing(Ledger(read_database_url()))


def _waiting(ledger: Ledger, event_ids: Sequence[str]) -> list[ParkedEvent]:
    """Return all events that wait, or those of the given ids."""
    events, wanted = ledger.parked_events(), set(event_ids)
    _refuse_missing(wanted - {event.id for event in events})
    return [event for event in events if not wanted or event.id in wanted]


def _refuse_missing(event_ids: set[str]) -> None:
    if event_ids:
        raise NotParkedError(f"not parked (any more): {', '.join(sorted(event_ids))}")


def _settle(event_id: str, ledger: Ledger, scope: EventScope, stripe: StripeAPI | None) -> Outcome:
    event = ledger.parked_event(event_id)
    if event is None or event.payload is None:
        return Outcome("duplicate")  # Meanwhile another event of its sale settled it, or somebody else did something.
    outcome = settle(read_event(event.payload), event.payload, ledger, scope, stripe)
    if outcome.name == "ignored" and outcome.missing_setting:
        # It was parked with other settings than these, which only cannot see what it is about.
        return Outcome("parked", f"{outcome.reason}: set {outcome.missing_setting}")
    if outcome.name == "ignored":
        ledger.resolve(event.id)
    return outcome


def _operator() -> str:
    """Return who runs this, as the operating system knows them."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _tabulate(events: Sequence[ParkedEvent]) -> None:
    if not events:
        click.echo("Nothing is parked.")
        return
    rows = [("EVENT", "TYPE", "AGE", "REASON"), *((e.id, e.type, _age(e), e.reason) for e in events)]
    for line in aligned(rows):
        click.echo(line)
    click.echo()
    for reason in sorted({event.reason for event in events}):
        click.echo(f"{reason}: {REMEDIES[reason]}")


def _describe(event: ParkedEvent) -> None:
    click.echo(f"event    {event.id}")
    click.echo(f"type     {event.type}")
    click.echo(f"reason   {event.reason}")
    click.echo(f"age      {_age(event)}, since {event.parked_at:%Y-%m-%d %H:%M:%S %Z}")
    if event.payload is None:
        click.echo(f"end      {event.resolution} {event.resolved_at:%Y-%m-%d %H:%M:%S %Z}")
        if event.resolution == "discarded":
            click.echo(f"by       {event.who}")
            click.echo(f"why      {event.why}")
    else:
        click.echo(f"to do    {REMEDIES[event.reason]}")
        click.echo(json.dumps(json.loads(event.payload), indent=2))


def _fields(event: ParkedEvent) -> dict[str, Any]:
    """Return an event as --json names it, without its payload."""
    return {
        "event_id": event.id,
        "event_type": event.type,
        "reason": event.reason,
        "payment_id": event.payment_id,
        "parked_at": event.parked_at.isoformat(),
        "age_seconds": _seconds(event),
        "what_to_do": None if event.resolution else REMEDIES[event.reason],
        "resolution": event.resolution,
        "resolved_at": event.resolved_at and event.resolved_at.isoformat(),
        "who": event.who,
        "why": event.why,
    }


def _seconds(event: ParkedEvent) -> int:
    return max(datetime.now(UTC) - event.parked_at, timedelta()) // timedelta(seconds=1)


def _age(event: ParkedEvent) -> str:
    """Return the time since in its two largest units, such as ``3d 4h``."""
    seconds = _seconds(event)
    parts = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    first = next((index for index, (size, _) in enumerate(parts) if seconds >= size), len(parts) - 1)
    shown = parts[first : first + 2]
    words = []
    for size, unit in shown:
        count, seconds = divmod(seconds, size)
        words.append(f"{count}{unit}")
    return " ".join(words)
