"""The command that explains payments and users: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.cli.exit_codes import FOUND, OK, command
from webhook.commands.explain import explain


@command("explain")
@click.argument("query", nargs=-1, required=True, metavar="QUERY...")
@click.option("--stripe", is_flag=True, help="Also search at Stripe. Needs STRIPE_API_KEY; read-only is enough.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in ASCII.")
@click.option("--reply", "as_reply", is_flag=True, help="Print only a short text for the customer.")
def explain_command(query: tuple[str, ...], *, stripe: bool, as_json: bool, as_reply: bool) -> int:
    """Explain a payment, a user or a parked event.

    \b
    Example:
      webhook explain pi_3QzWn2LkdIwHu7ix1cXoX3qf

    QUERY is a Stripe id, a user's or generation's id, or an email address. With --stripe it can also be the number of
    an invoice or receipt, or the day and amount of a payment with its card's last four digits or its payer's email
    address. The verdict comes first, then the
    story. It changes nothing.

    \b
    Examples with --stripe:
      webhook explain --stripe anna@example.com
      webhook explain --stripe 4242 10.00 usd 2026-11-24
      webhook explain --stripe anna@example.com 10 tuesday

    Exit codes: 0 = found and fine, 1 = something needs attention, or nothing was found, 2 = an error.
    """
    if as_json and as_reply:
        raise click.UsageError("use either --json or --reply")
    return OK if explain(" ".join(query), stripe=stripe, as_json=as_json, as_reply=as_reply) else FOUND


COMMANDS = (explain_command,)
