"""``webhook parked`` and ``discard``: events that could not be settled."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from webhook.actions.parked import NotParkedError
from webhook.actions.parked import discard as do_discard
from webhook.commands.operator import operator_ledger, set_up_log
from webhook.events.fields import IDENTIFIER
from webhook.events.payer import is_email
from webhook.explain.wording import age
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.ledger.operator import Operator
from webhook.output import aligned
from webhook.remedies import remedy
from webhook.settings import read_database_url


def show(name: str, *, as_json: bool) -> None:
    """Print the events with this event id, payment, user or payer, open or resolved; a single one with its payload.

    Raises :class:`NotParkedError` if there is none, or :class:`LedgerUnavailableError`.
    """
    with _ledger() as ledger:
        events = ledger.find_parked(name) if IDENTIFIER.fullmatch(name) or is_email(name) else []
    if not events:
        raise NotParkedError(f"never parked: {name} (no event, payment, user or payer of a parked event)")
    if as_json:
        for event in events:
            click.echo(_with_payload(event))
    elif len(events) == 1:
        _describe(events[0])
    else:
        _print_list(events)


def show_all(*, as_json: bool) -> None:
    """Print a table; on a pipe, one line per event: id, reason, age, payment and user, separated by tabs.

    ``as_json`` prints one JSON object per event and line, without payloads.
    """
    with _ledger() as ledger:
        events = ledger.parked_events()
    if as_json:
        for event in events:
            click.echo(json.dumps(_fields(event)))
    else:
        _print_list(events)


def discard(event_ids: Sequence[str], operator: Operator) -> None:
    """Discard all the events, or none; raises :class:`RuleError` or :class:`NotParkedError` if one is not parked."""
    set_up_log()
    with operator_ledger() as operators:
        discarded = do_discard(event_ids, operator, operators)
    for event_id in discarded:
        click.echo(f"{event_id}\tdiscarded")


def _ledger() -> closing[Ledger]:
    return closing(Ledger(read_database_url()))


def _print_list(events: Sequence[ParkedEvent]) -> None:
    if sys.stdout.isatty():
        lines = _table(events)
    else:
        lines = ["\t".join((e.id, _state(e), _age(e), e.payment_id or "-", _user(e))) for e in events]
    for line in lines:
        click.echo(line)


def _table(events: Sequence[ParkedEvent]) -> list[str]:
    if not events:
        return ["Nothing is parked."]
    heading = ("EVENT", "TYPE", "PAYMENT", "USER", "AGE", "REASON")
    rows = [heading, *((e.id, e.type, e.payment_id or "-", _user(e), _age(e), _state(e)) for e in events)]
    remedies = sorted({f"{event.reason}: {remedy(event)}" for event in events if not event.resolution})
    return [*aligned(rows), *([""] if remedies else []), *remedies]


def _state(event: ParkedEvent) -> str:
    """Return why the event is parked, or how it was resolved."""
    return event.resolution or event.reason


def _user(event: ParkedEvent) -> str:
    return event.user_reference or "-"


def _with_payload(event: ParkedEvent) -> str:
    """Return one line of JSON.

    The payload is stored as JSON text. To parse and print it again could change its numbers. JSON strings contain no
    line break.
    """
    payload = (event.payload or "null").replace("\r", " ").replace("\n", " ")
    return f'{json.dumps(_fields(event))[:-1]}, "payload": {payload}}}'


def _describe(event: ParkedEvent) -> None:
    rows = [
        ("event", event.id),
        ("type", event.type),
        ("reason", event.reason),
        ("payment", event.payment_id or "-"),
        ("user", _user(event)),
        ("payer", event.payer_email or "-"),
        ("age", f"{_age(event)}, since {event.parked_at:%Y-%m-%d %H:%M:%S %Z}"),
    ]
    if event.resolution:
        rows.append(("resolved", f"{event.resolution} {event.resolved_at:%Y-%m-%d %H:%M:%S %Z}"))
        if event.resolution == "discarded":
            rows += [("by", str(event.discarded_by)), ("why", str(event.discard_reason))]
    else:
        rows.append(("to do", remedy(event, event.id)))
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
        "user": event.user_reference,
        "payer_email": event.payer_email,
        "parked_at": event.parked_at.isoformat(),
        "age_seconds": _age_seconds(event),
        "what_to_do": None if event.resolution else remedy(event, event.id),
        "resolution": event.resolution,
        "resolved_at": event.resolved_at and event.resolved_at.isoformat(),
        "discarded_by": event.discarded_by,
        "discard_reason": event.discard_reason,
    }


def _age_seconds(event: ParkedEvent) -> int:
    """Return whole seconds, never below 0: the clock of the database may be ahead."""
    return max(datetime.now(UTC) - event.parked_at, timedelta()) // timedelta(seconds=1)


def _age(event: ParkedEvent) -> str:
    return age(timedelta(seconds=_age_seconds(event)))
