"""The commands that read and retry parked events: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.actions.parked import NotParkedError
from webhook.cli.exit_codes import FOUND, OK, command, fail
from webhook.cli.options import json_option
from webhook.commands import parked
from webhook.commands.retry import retry


@command("parked")
@click.argument("name", required=False, metavar="[EVENT_ID|PAYMENT_ID|USER_ID|EMAIL]")
@json_option
def parked_command(name: str | None, *, as_json: bool) -> int:
    """List the parked events, or those of one payment, user or payer.

    \b
    Example:
      webhook parked pi_123

    A single event is shown with its payload and the advice for its reason. A resolved one shows its resolution.
    If the output is not a terminal, each line of a list has id, reason, age, payment and user, separated by tabs.
    The exit code is 1 if nothing with that id was ever parked.
    """
    if not name:
        parked.show_all(as_json=as_json)
        return OK
    try:
        parked.show(name, as_json=as_json)
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

    It tries the given events, by default all. If an event's user or credits are missing or wrong, it reads their
    metadata and prices as they are at Stripe now, with STRIPE_API_KEY. For a settled sale it prints the ledger rows. A
    discarded event is put back on the list and tried, while its payload is kept.

    Exit codes: 0 = none is parked any more, 1 = some are, 2 = an error, or a given event was never parked.
    """
    return OK if retry(event_ids) else FOUND


COMMANDS = (parked_command, retry_command)
