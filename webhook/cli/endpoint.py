"""The ``webhook endpoint`` commands: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.cli.exit_codes import FOUND, OK, command, fail
from webhook.commands import endpoint
from webhook.commands.endpoint import ExistingEndpointError, MissingEndpointError


@click.group("endpoint")
def endpoint_commands() -> None:
    """Create or check the webhook endpoint at Stripe.

    \b
    Example:
      webhook endpoint check
    """


_api_key_option = click.option(
    "--api-key",
    metavar="KEY",
    help="Not stored. Prefer STRIPE_API_KEY: other users of this machine can see options.",
)


@command("create")
@click.option("--url", required=True, metavar="https://…/webhook", help="The public URL of the worker.")
@_api_key_option
@click.option("--force", is_flag=True, help="Create it also if its URL has one, or another path.")
@click.option("--connect", is_flag=True, help="Receive only events of connected accounts (STRIPE_ACCOUNT).")
def endpoint_create_command(url: str, api_key: str | None, *, force: bool, connect: bool) -> int:
    """Create an endpoint and print its id and signing secret.

    \b
    Example:
      webhook endpoint create --url https://credits.example.com/webhook

    The endpoint receives the events that this worker reads. The key needs the permission Webhook Endpoints: Write.

    Exit codes: 0 = created, 1 = the URL has an endpoint already, 2 = an unusable URL, or no answer from Stripe.
    """
    try:
        endpoint.create(url, api_key, force=force, connect=connect)
    except ExistingEndpointError as error:
        return fail(str(error), FOUND)
    return OK


@command("check")
@click.argument("endpoint_id", required=False)
@click.option("--url", metavar="URL", help="The URL of the endpoint, instead of its id.")
@_api_key_option
def endpoint_check_command(endpoint_id: str | None, url: str | None, api_key: str | None) -> int:
    """Compare an endpoint with what this worker needs.

    \b
    Example:
      webhook endpoint check --url https://credits.example.com/webhook

    The default is the only endpoint whose URL ends with /webhook.
    Exit codes: 0 = it is right, 1 = something differs or there is no such endpoint, 2 = the result is not known.
    """
    try:
        return OK if endpoint.check(endpoint_id or url, api_key) else FOUND
    except MissingEndpointError as error:
        return fail(str(error), FOUND)


for each in (endpoint_create_command, endpoint_check_command):
    endpoint_commands.add_command(each)
