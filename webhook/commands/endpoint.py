"""``webhook endpoint create`` and ``check``: the endpoint to which Stripe delivers events.

https://docs.stripe.com/api/webhook_endpoints/object
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click
from stripe import api_version

from webhook.errors import ExpectedError
from webhook.events.fields import JSONObject
from webhook.events.interpret import HANDLED_EVENTS
from webhook.output import silence_notice
from webhook.settings import read_operator_key
from webhook.stripe_api.endpoints import StripeOperator
from webhook.stripe_api.errors import StripeUnavailableError

OLDEST_VERSION = "2022-11-15"
"""The oldest API version whose events the worker reads."""

READ_PERMISSION, WRITE_PERMISSION = "Webhook Endpoints: Read", "Webhook Endpoints: Write"

_PATH = "/webhook"
_REPLACE = "create another with --force, use both secrets, and delete this one after its retries (3 days)"
"""Stripe's retries to an endpoint end when it is deleted: https://docs.stripe.com/webhooks#retries."""
_MISTAKEN = {"invoice.paid": "invoice.payment_succeeded", "payment_intent.succeeded": "charge.succeeded"}
"""Events that the worker reads, each with one that looks alike but is not always sent, or has another object."""
_LOCAL_HOSTS = ("localhost", ".localhost", ".local", ".internal")


class EndpointError(ExpectedError):
    """An endpoint is missing or unsuitable. The message gives the remedy and contains no secret."""


class AmbiguousEndpointError(EndpointError):
    """Several endpoints match; the message names them."""


class MissingEndpointError(EndpointError):
    """No endpoint matches."""


class ExistingEndpointError(EndpointError):
    """The URL has an endpoint already; the message names it."""


def create(url: str, api_key: str | None = None, *, force: bool = False, connect: bool = False) -> None:
    """Create the endpoint, and print its id and its signing secret; raises :class:`EndpointError`.

    ``force`` creates one even if the URL already has one, or has another path. ``connect`` is for the events of
    connected accounts.
    """
    _check_url(url)
    if not force:
        _check_path(url)
    operator = _operator(api_key)
    with _permission_hint(WRITE_PERMISSION):
        same = [each for each in operator.endpoints() if _is_same(each.get("url"), url)]
        if same and not force:
            raise ExistingEndpointError(
                f"{same[0].get('id')} already has this URL: see webhook endpoint check, or add --force"
            )
        created = operator.create_endpoint(
            url=url, enabled_events=list(HANDLED_EVENTS), api_version=api_version, connect=connect or None
        )
    _print_new(created, is_additional=bool(same) or connect)


def check(id_or_url: str | None = None, api_key: str | None = None) -> bool:
    """Print one line per difference from what this worker needs, and return whether there is none."""
    operator = _operator(api_key)
    with _permission_hint(READ_PERMISSION):
        endpoints = operator.endpoints()
    endpoint = find(endpoints, id_or_url)
    found = differences(endpoint)
    for line in (found or ["ok"]) + notes(endpoint, endpoints):
        click.echo(f"{endpoint['id']}: {line}")
    return not found


def differences(endpoint: JSONObject) -> list[str]:
    """Return the differences from what this worker needs, most serious first."""
    events, version = endpoint.get("enabled_events") or [], endpoint.get("api_version")
    found = [] if endpoint.get("status") == "enabled" else ["disabled: enable it in the Dashboard"]
    if urlsplit(str(endpoint.get("url"))).scheme == "http":
        found.append("its URL begins with http://, which Stripe refuses in live mode: change it to https://")
    if "*" not in events:
        found += [_missing(event, events) for event in HANDLED_EVENTS if event not in events]
    if version and version < OLDEST_VERSION:
        found.append(f"API version {version} is older than {OLDEST_VERSION}: {_REPLACE}")
    found += [
        "unneeded events: * includes far more than the worker reads" if event == "*" else f"unneeded event: {event}"
        for event in events
        if event not in HANDLED_EVENTS
    ]
    return found


def notes(endpoint: JSONObject, endpoints: Sequence[JSONObject]) -> list[str]:
    """Return what an operator should know about the endpoint, and may be right."""
    url = str(endpoint.get("url"))
    found = []
    if url.endswith("/") and _is_ours(url):
        found.append(f"its URL ends with {_PATH}/, which works like {_PATH}")
    elif not _is_ours(url):
        found.append(f"its URL does not end with {_PATH}: the worker answers 404, unless a proxy changes the path")
    found += [
        f"{each.get('id')} has the same URL: events may arrive twice, and STRIPE_WEBHOOK_SECRET needs both secrets"
        for each in endpoints
        if each.get("id") != endpoint.get("id") and _is_same(each.get("url"), url)
    ]
    if not endpoint.get("api_version"):
        found.append(f"uses the account's default API version, which must be {OLDEST_VERSION} or later")
    return found


def find(endpoints: Sequence[JSONObject], id_or_url: str | None = None) -> JSONObject:
    """Return the endpoint with the id or URL, by default the only one whose URL ends with /webhook.

    Raises :class:`EndpointError` if there is none, and :class:`AmbiguousEndpointError` if there are several.
    """
    if id_or_url:
        found = [each for each in endpoints if each.get("id") == id_or_url or _is_same(each.get("url"), id_or_url)]
    else:
        found = [each for each in endpoints if _is_ours(str(each.get("url")))]
    if not found:
        which = "with this id or URL" if id_or_url else f"whose URL ends with {_PATH}"
        others = f", only {_list(endpoints)}" if endpoints else ""
        raise MissingEndpointError(
            f"no endpoint {which} in the key's account and mode{others}: run webhook endpoint create --url URL"
        )
    if len(found) > 1:
        raise AmbiguousEndpointError(f"which of these? {_list(found)}")
    return found[0]


def _missing(event: str, events: Sequence[str]) -> str:
    mistaken = _MISTAKEN.get(event)
    return f"missing event: {event}" + (f" ({mistaken} does not replace it)" if mistaken in events else "")


def _list(endpoints: Sequence[JSONObject]) -> str:
    """Return ids and addresses. A query could hold a token."""
    return ", ".join(f"{each.get('id')} ({_address(str(each.get('url')))})" for each in endpoints)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    return f"{parts.hostname}{parts.path}"


def _is_ours(url: str) -> bool:
    """Return whether the worker serves this path. In front of it may be the path of a proxy."""
    return urlsplit(url).path.removesuffix("/").endswith(_PATH)


def _is_same(url: Any, other: str) -> bool:
    return str(url).removesuffix("/") == other.removesuffix("/")


def _operator(api_key: str | None) -> StripeOperator:
    settings = read_operator_key(api_key)
    return StripeOperator(settings, silence_notice(settings))


def _check_url(url: str) -> None:
    """Raise :class:`EndpointError` if Stripe cannot deliver to the URL, or not safely."""
    try:
        parts = urlsplit(url)
        is_https = parts.scheme == "https" and parts.username is None and url.isascii() and not url.count(" ")
        is_public = _is_public(parts.hostname or "localhost")
    except ValueError:
        is_https = is_public = False
    if not is_https:
        raise EndpointError(f"the URL is not https://<your host>{_PATH}")
    if not is_public:
        raise EndpointError("Stripe cannot reach this host: on your machine use webhook dev --listen")


def _check_path(url: str) -> None:
    if not _is_ours(url):
        raise EndpointError(f"the URL does not end with {_PATH}: add that, or --force if a proxy changes the path")


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.rstrip(".").endswith(_LOCAL_HOSTS)


def _print_new(endpoint: JSONObject, *, is_additional: bool) -> None:
    """Print the id and the signing secret on standard output, and the next steps on standard error.

    With an additional endpoint the worker needs the secrets of both.
    """
    if not (isinstance(endpoint.get("id"), str) and isinstance(endpoint.get("secret"), str)):
        raise StripeUnavailableError("Stripe's answer does not contain a new endpoint")
    click.echo(f"endpoint  {endpoint['id']}")
    click.echo(f"secret    {endpoint['secret']}")
    step = "Add it to STRIPE_WEBHOOK_SECRET, after a comma," if is_additional else "Set STRIPE_WEBHOOK_SECRET to it"
    click.echo(
        f"Created in {'live' if endpoint.get('livemode') else 'test'} mode. Stripe never shows the secret again.\n"
        f"{step} for the worker, and restart the worker. Then run:\n"
        f"webhook endpoint check {endpoint['id']}",
        err=True,
    )


@contextmanager
def _permission_hint(permission: str) -> Iterator[None]:
    """Add to an error of Stripe the ``permission`` that a restricted key needs here."""
    try:
        yield
    except StripeUnavailableError as error:
        raise error.with_permission_hint(permission) from None
