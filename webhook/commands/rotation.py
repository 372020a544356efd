"""``webhook endpoint roll``: another signing secret, without a delivery lost.

Stripe's API cannot give an endpoint another secret. So a second endpoint takes the first one's place: made, but
disabled, until the worker has proved that it knows both secrets; then enabled beside the first; and the first is
deleted once nothing waits to be delivered to it, for Stripe's retries to an endpoint end with it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import click
from stripe import WebhookSignature

from webhook.commands.endpoint import WRITE_RIGHT, EndpointError, announce, asking, check_url, find
from webhook.events.fields import JSONObject
from webhook.events.interpret import HANDLED_EVENTS
from webhook.settings import is_set, read_operator_key, read_webhook_secrets
from webhook.stripe_api.endpoints import StripeOperator

_REPLACES, _FINGERPRINT = "replaces", "secret_sha256"
"""Metadata of the second endpoint: the id of the first one, and the hash of its own secret."""

_ROUNDS = 3
"""A proof is repeated, for a deployment may still have processes of before."""
_SECONDS_TO_ANSWER = 20
_RETRIED = 3 * 24 * 3600
"""Seconds that Stripe goes on delivering an event: https://docs.stripe.com/webhooks#retries."""
_LONGEST_ANSWER = 65536


class NotProvedError(EndpointError):
    """The worker at the URL does not verify as it should; the message says with which secret."""


@dataclass(frozen=True)
class Rotation:
    """An endpoint and the one that takes its place."""

    old: JSONObject
    new: JSONObject


def begin(
    operator: StripeOperator, place: str | None, *, connect: bool | None = None, any_url: bool = False
) -> JSONObject:
    """Make the second endpoint, disabled, print its secret, and return it; raises :class:`EndpointError`.

    ``connect`` says whether it is for connected accounts, which Stripe does not tell of the first one. ``any_url`` lets
    tests deliver to this machine.
    """
    if connect is None and is_set("STRIPE_ACCOUNT"):
        raise EndpointError("say --connect if this endpoint is for connected accounts' events, else --no-connect")
    with asking(WRITE_RIGHT):
        endpoints = operator.endpoints()
        if under_way := _rotations(endpoints, place):
            raise EndpointError(
                f"{under_way[0].new['id']} is there to replace {under_way[0].old['id']}: go on with --finish, "
                "or delete it in the Dashboard and begin anew"
            )
        old = find(endpoints, place)
        if not any_url:
            check_url(str(old["url"]))
        # The hash of an earlier rotation is that of the old secret.
        kept = {name: value for name, value in _metadata_of(old).items() if name != _FINGERPRINT}
        new = operator.create_endpoint(
            url=old["url"],
            enabled_events=old["enabled_events"],
            api_version=old.get("api_version"),
            description=old.get("description"),
            metadata={**kept, _REPLACES: old["id"]},
            connect=connect or None,
        )
        announce(new)
        metadata = {_FINGERPRINT: _fingerprint(new["secret"])}
        operator.update_endpoint(new["id"], disabled=True, metadata=metadata)
    click.echo(
        f"{new['id']} is disabled until the worker knows its secret, and takes the place of {old['id']} then.\n"
        "Set STRIPE_WEBHOOK_SECRET=<old secret>,<new secret> where the worker runs, and deploy it.",
        err=True,
    )
    return dict(new)


def finish(  # noqa: PLR0913 - what is known, and what is agreed to
    operator: StripeOperator,
    place: str | None,
    known_secrets: Sequence[str] = (),
    *,
    yes: bool = False,
    undelivered: bool = False,
    any_url: bool = False,
) -> None:
    """Prove that the worker verifies both secrets, enable the second endpoint and delete the first.

    The secrets are those given or in STRIPE_WEBHOOK_SECRET, else asked for. ``undelivered`` deletes though events wait;
    ``any_url`` lets tests deliver to this machine. Raises :class:`EndpointError`, with nothing deleted.
    """
    with asking(WRITE_RIGHT):
        rotation = _rotation(operator.endpoints(), place)
    if not any_url:
        check_url(str(rotation.old["url"]))
    new_secret, old_secret = _both_secrets(rotation, known_secrets)
    prove(str(rotation.old["url"]), old_secret, new_secret)
    _replace(operator, rotation, yes=yes, undelivered=undelivered)


def roll(
    place: str | None, api_key: str | None, *, connect: bool | None = None, yes: bool = False, undelivered: bool = False
) -> None:
    """Do both steps, with a person who deploys in between; raises :class:`EndpointError`."""
    operator = StripeOperator(read_operator_key(api_key))
    old_secret = () if is_set("STRIPE_WEBHOOK_SECRET") else (_asked_for("old"),)
    new = begin(operator, place, connect=connect)
    while True:
        click.confirm("Is it deployed, with both secrets?", default=True, abort=True)
        try:
            return finish(operator, new["id"], (new["secret"], *old_secret), yes=yes, undelivered=undelivered)
        except NotProvedError as error:
            click.echo(str(error), err=True)


def prove(url: str, old_secret: str, new_secret: str) -> None:
    """Deliver harmless events, signed with each secret and with one that nobody knows; raise NotProvedError."""
    trials = (
        ("old", old_secret, True),
        ("new", new_secret, True),
        ("made-up", f"whsec_{secrets.token_hex(16)}", False),
    )
    for name, secret, is_known in trials * _ROUNDS:
        status, outcome = _deliver(url, secret)
        if is_known and (status, outcome) != (HTTPStatus.OK, "ignored"):
            raise NotProvedError(
                f"an event signed with the {name} secret is answered {status or 'not at all'}: "
                f"is the worker deployed with both? Nothing is deleted"
            )
        if not is_known and status == HTTPStatus.OK:
            raise NotProvedError("an event signed with a made-up secret is answered 200: is this the worker's URL?")
    click.echo("proved    the worker verifies both secrets, and refuses another")


def _replace(operator: StripeOperator, rotation: Rotation, *, yes: bool, undelivered: bool) -> None:
    with asking(WRITE_RIGHT):
        operator.update_endpoint(rotation.new["id"], disabled=False)
    click.echo(f"enabled   {rotation.new['id']}")
    if not undelivered:
        _refuse_undelivered(operator)
    old_id = rotation.old["id"]
    if not yes:
        click.confirm(f"Delete {old_id}, the old endpoint?", abort=True)
    with asking(WRITE_RIGHT):
        operator.delete_endpoint(old_id)
    click.echo(f"deleted   {old_id}")
    click.echo("Now set STRIPE_WEBHOOK_SECRET to the new secret alone, and deploy again.", err=True)


def _refuse_undelivered(operator: StripeOperator) -> None:
    """Raise :class:`EndpointError` while Stripe may still have something to deliver to the old endpoint."""
    with asking("Events: Read (or look yourself and add --ignore-undelivered)"):
        waiting = operator.undelivered_events(HANDLED_EVENTS, int(time.time()) - _RETRIED)
    if waiting:
        raise EndpointError(
            f"{len(waiting)} events of the last three days are not delivered to every endpoint, such as "
            f"{waiting[-1].get('id')}: Stripe's retries to the old endpoint would end with it. Both endpoints are "
            "enabled, which does no harm: --finish again later, or add --ignore-undelivered"
        )


def _rotation(endpoints: Sequence[JSONObject], place: str | None) -> Rotation:
    found = _rotations(endpoints, place)
    if len(found) != 1:
        raise EndpointError("which rotation? name its endpoint" if found else "no rotation has begun: roll --begin")
    return found[0]


def _rotations(endpoints: Sequence[JSONObject], place: str | None) -> list[Rotation]:
    """Return the pairs where one endpoint is there to take another's place, and that ``place`` (id or URL) may mean."""
    by_id = {each.get("id"): each for each in endpoints}
    pairs = ((by_id.get(_metadata_of(new).get(_REPLACES)), new) for new in endpoints)
    found = [Rotation(old, new) for old, new in pairs if old]
    return [each for each in found if place in (None, each.old["id"], each.new["id"], each.new["url"])]


def _metadata_of(endpoint: JSONObject) -> JSONObject:
    return endpoint.get("metadata") or {}


def _both_secrets(rotation: Rotation, given: Sequence[str]) -> tuple[str, str]:
    """Return the new and the old secret: given, or from STRIPE_WEBHOOK_SECRET, else as they are typed in."""
    fingerprint = _metadata_of(rotation.new).get(_FINGERPRINT)
    if not fingerprint:
        raise EndpointError(f"{rotation.new['id']} was not made to the end: delete it in the Dashboard and begin anew")
    known = (*given, *(read_webhook_secrets() if is_set("STRIPE_WEBHOOK_SECRET") else ()))
    new = next((each for each in known if _fingerprint(each) == fingerprint), None) or _asked_for("new")
    if _fingerprint(new) != fingerprint:
        raise EndpointError(f"this is not the secret of {rotation.new['id']}")
    old = next((each for each in known if each != new), None) or _asked_for("old")
    return new, old


def _asked_for(name: str) -> str:
    return str(click.prompt(f"The {name} endpoint's signing secret", hide_input=True, err=True)).strip()


def _fingerprint(secret: str) -> str:
    """Return a hash, which gives nothing away of a secret that is random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Stripe follows none: https://docs.stripe.com/webhooks#acknowledge-events-immediately."""

    def redirect_request(self, *_: object) -> None:
        """Leave the answer as it is."""


def _deliver(url: str, secret: str) -> tuple[int, Any]:
    """Deliver an event that no worker acts on, and return the status (0 for no answer) and the outcome."""
    body = json.dumps(_harmless_event())
    headers = {
        "Content-Type": "application/json",
        "Stripe-Signature": WebhookSignature.generate_signature_header(body, secret),
    }
    request = urllib.request.Request(url, body.encode(), headers)  # noqa: S310 - checked by check_url
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS_TO_ANSWER) as answer:
            told = json.loads(answer.read(_LONGEST_ANSWER))
            return answer.status, told.get("outcome") if isinstance(told, dict) else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except ValueError:
        return HTTPStatus.OK, None
    except (OSError, HTTPException):
        return 0, None


def _harmless_event() -> JSONObject:
    return {
        "id": f"evt_roll_{secrets.token_hex(12)}",
        "object": "event",
        "api_version": None,
        "created": int(time.time()),
        "data": {"object": {"id": "acct_roll", "object": "account"}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "account.updated",
    }
