"""The ``webhook endpoint`` commands: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import sys

import click

from webhook.commands import endpoint
from webhook.commands.endpoint import AmbiguousEndpointError
from webhook.commands.exit_codes import FOUND, NO_ANSWER, OK
from webhook.stripe_api.errors import StripeUnavailableError


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


@endpoint_commands.command("create")
@click.option("--url", required=True, metavar="https://…/webhook", help="The public URL of the worker.")
@_api_key_option
@click.option("--force", is_flag=True, help="Create another endpoint for a URL that has one.")
@click.option("--connect", is_flag=True, help="Receive only events of connected accounts (STRIPE_ACCOUNT).")
def endpoint_create_command(url: str, api_key: str | None, *, force: bool, connect: bool) -> None:
    """Create an endpoint and print its id and signing secret.

    \b
    Example:
      webhook endpoint create --url https://credits.example.com/webhook

    The endpoint receives the events that this worker reads. The key needs the permission Webhook Endpoints: Write.
    """
    endpoint.create(url, api_key, force=force, connect=connect)


@endpoint_commands.command("check")
@click.argument("endpoint_id", required=False)
@click.option("--url", metavar="URL", help="The URL of the endpoint, instead of its id.")
@_api_key_option
def endpoint_check_command(endpoint_id: str | None, url: str | None, api_key: str | None) -> None:
    """Compare an endpoint with what this worker needs.

    \b
    Example:
      webhook endpoint check --url https://credits.example.com/webhook

    The default is the only endpoint whose URL ends with /webhook.
    Exit codes: 0 = it is right, 1 = something differs or there is no such endpoint, 2 = the result is not known.
    """
    try:
        is_right = endpoint.check(endpoint_id or url, api_key)
    except (AmbiguousEndpointError, StripeUnavailableError) as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(NO_ANSWER)
    sys.exit(OK if is_right else FOUND)
