"""``webhook endpoint create`` and ``check``: where Stripe delivers, and what.

https://docs.stripe.com/api/webhook_endpoints/object
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import click
from stripe import api_version

from webhook.events.fields import JSONObject
from webhook.events.interpret import HANDLED_EVENTS
from webhook.settings import read_operator_key
from webhook.stripe_api.endpoints import StripeOperator
from webhook.stripe_api.errors import StripeUnavailableError

OLDEST_VERSION = "2022-11-15"
"""The oldest API version whose events the worker reads."""

READ_RIGHT, WRITE_RIGHT = "Webhook Endpoints: Read", "Webhook Endpoints: Write"

_PATH = "/webhook"
_LOCAL = ("localhost", ".localhost", ".local", ".internal")


class EndpointError(Exception):
    """An endpoint is not as the command needs it, or not there; the message says what to do, without any secret."""


class AmbiguousEndpointError(EndpointError):
    """Several endpoints could be meant; the message names them."""


def create(url: str, api_key: str | None = None, *, again: bool = False, connect: bool = False) -> None:
    """Make the endpoint, and print its id and, this once, its signing secret; raises :class:`EndpointError`.

    ``again`` makes another one where the URL has one; ``connect`` makes one for connected accounts' events.
    """
    check_url(url)
    operator = StripeOperator(read_operator_key(api_key))
    with asking(WRITE_RIGHT):
        same = [each for each in operator.endpoints() if each.get("url") == url]
        if same and not again:
            raise EndpointError(f"{same[0].get('id')} has this URL already: see webhook endpoint check, or add --again")
        made = operator.create_endpoint(
            url=url, enabled_events=list(HANDLED_EVENTS), api_version=api_version, connect=connect or None
        )
    announce(made)
    click.echo(
        f"Made for {'live' if made.get('livemode') else 'test'} mode. Stripe never shows the secret again: set\n"
        "STRIPE_WEBHOOK_SECRET to it where the worker runs and start the worker anew. Then run:\n"
        f"webhook endpoint check {made['id']}",
        err=True,
    )


def check(place: str | None = None, api_key: str | None = None) -> bool:
    """Print how an endpoint differs from what this worker wants, a line each, and return whether it does not."""
    operator = StripeOperator(read_operator_key(api_key))
    with asking(READ_RIGHT):
        endpoint = find(operator.endpoints(), place)
    found = differences(endpoint)
    for difference in found or ["ok"]:
        click.echo(f"{endpoint['id']}: {difference}")
    if not endpoint.get("api_version"):
        click.echo(f"{endpoint['id']}: has the account's default API version: {OLDEST_VERSION} or later is right")
    return not found


def differences(endpoint: JSONObject) -> list[str]:
    """Return what is not as this worker wants it, a line each, what is worst first."""
    events, version = endpoint.get("enabled_events") or [], endpoint.get("api_version")
    found = [] if endpoint.get("status") == "enabled" else ["disabled: enable it in the Dashboard"]
    if "*" not in events:
        found += [f"missing event: {event}" for event in HANDLED_EVENTS if event not in events]
    if version and version < OLDEST_VERSION:
        found.append(f"API version {version} is older than {OLDEST_VERSION}: create --again, then delete this one")
    found += [
        "superfluous events: * is complete, and far more than the worker reads"
        if event == "*"
        else f"superfluous event: {event}"
        for event in events
        if event not in HANDLED_EVENTS
    ]
    return found


def find(endpoints: Sequence[JSONObject], place: str | None = None) -> JSONObject:
    """Return the endpoint whose id or URL ``place`` is; without one, the only one whose URL ends with /webhook."""
    if place:
        found = [each for each in endpoints if place in (each.get("id"), each.get("url"))]
    else:
        found = [each for each in endpoints if urlsplit(str(each.get("url"))).path.endswith(_PATH)]
    if not found:
        which = "with this id or URL" if place else f"whose URL ends with {_PATH}"
        raise EndpointError(f"no endpoint {which} in the key's account and mode: webhook endpoint create")
    if len(found) > 1:
        raise AmbiguousEndpointError(f"which of these? {', '.join(str(each.get('id')) for each in found)}")
    return found[0]


def check_url(url: str) -> None:
    """Raise :class:`EndpointError` where Stripe could not deliver to the URL, or not safely."""
    try:
        parts = urlsplit(url)
        is_https = parts.scheme == "https" and parts.username is None and url.isascii() and not url.count(" ")
        is_public = _is_public(parts.hostname or "localhost")
    except ValueError:
        is_https = is_public = False
    if not is_https:
        raise EndpointError(f"the URL is not https://<your host>{_PATH}")
    if not is_public:
        raise EndpointError("Stripe cannot reach this host: on your machine use stripe listen, see webhook dev")


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.rstrip(".").endswith(_LOCAL)


def announce(endpoint: JSONObject) -> None:
    """Print a new endpoint's id and signing secret."""
    if not (isinstance(endpoint.get("id"), str) and isinstance(endpoint.get("secret"), str)):
        raise StripeUnavailableError("Stripe's answer is no new endpoint")
    click.echo(f"endpoint  {endpoint['id']}")
    click.echo(f"secret    {endpoint['secret']}")


@contextmanager
def asking(right: str) -> Iterator[None]:
    """Say of Stripe's refusals what an operator can do; ``right`` is what a restricted key needs."""
    try:
        yield
    except StripeUnavailableError as error:
        raise error.with_permission_hint(right) from None
