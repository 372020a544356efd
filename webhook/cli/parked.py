"""The commands for parked events: parked, retry, discard: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.cli.exit_codes import FOUND, OK, command, fail
from webhook.cli.options import json_option
from webhook.cli.text_option import TextParameter
from webhook.commands import parked
from webhook.commands.parked import NotParkedError


@command("parked")
@click.argument("event_id", required=False)
@json_option
def parked_command(event_id: str | None, *, as_json: bool) -> int:
    """List the parked events, or show one with its payload.

    \b
    Example:
      webhook parked evt_123

    If the output is not a terminal, each event is one line: id, reason and age, separated by tabs. A resolved event
    shows its resolution. The exit code is 1 if EVENT_ID was never parked.
    """
    if not event_id:
        parked.show_all(as_json=as_json)
        return OK
    try:
        parked.show(event_id, as_json=as_json)
    except NotParkedError as error:
        return fail(str(error), FOUND)
    return OK


@command("retry")
@click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
def retry_command(event_ids: tuple[str, ...]) -> int:
    """Settle parked events that can be settled now.

    \b
    Example:
      webhook retry

    It tries the given events, by default all. Exit codes: 0 = none is parked any more, 1 = some are, 2 = an error, or a
    given event is not parked.
    """
    return OK if parked.retry(event_ids) else FOUND


@command("discard")
@click.argument("event_ids", nargs=-1, required=True, metavar="EVENT_ID...")
@click.option("--reason", required=True, type=TextParameter(), help="Why. It is kept for ever: enter no personal data.")
@click.option(
    "--by",
    metavar="NAME",
    type=TextParameter(),
    help="Your name. Default: the system user. The database login is added.",
)
def discard_command(event_ids: tuple[str, ...], reason: str, by: str | None) -> int:
    """Remove parked events from the list without settling them.

    \b
    Example:
      webhook discard evt_123 --reason "a test purchase"

    The payload is deleted. `webhook parked EVENT_ID` shows who discarded the event, when and why. A discarded event
    never returns to the list. If Stripe delivers it again, it is settled if possible. Other events of its sale are not
    affected. If one of the given events is not parked, none is discarded and the exit code is 2.
    """
    parked.discard(event_ids, reason, by)
    return OK


COMMANDS = (parked_command, retry_command, discard_command)
