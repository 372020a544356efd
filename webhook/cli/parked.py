"""The commands that read and retry parked events: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.cli.exit_codes import FOUND, OK, command, fail
from webhook.cli.options import json_option
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


COMMANDS = (parked_command, retry_command)
