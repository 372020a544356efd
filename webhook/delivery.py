"""One delivery: verify its signature, read its event, settle it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import Enum
from typing import NoReturn

from stripe import SignatureVerificationError, WebhookSignature

from webhook.events.facts import Facts, Ignored, Unsettled
from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.interpret import Event, interpret
from webhook.events.lookups import ask_nobody
from webhook.ledger.ledger import Ledger, Outcome
from webhook.settings import Guards
from webhook.stripe_api.client import StripeAPI

TOLERANCE = 300
"""Seconds that a signature stays good: https://docs.stripe.com/webhooks#replay-attacks."""


class Problem(Enum):
    """What is wrong with a delivery that is not Stripe's, or not an event."""

    NO_SIGNATURE = "no Stripe-Signature header"
    MALFORMED_SIGNATURE = "malformed Stripe-Signature header"
    WRONG_SIGNATURE = "the signature does not match"
    OLD_SIGNATURE = "the signature is too old"
    BROKEN_BODY = "the body does not come whole"
    NOT_UTF8 = "the body is not UTF-8"
    NOT_JSON = "the body is not JSON"
    NOT_AN_EVENT = "the body is not a Stripe event"

    @property
    def cause(self) -> str:
        """As metrics and logs name it."""
        return self.name.lower()


class BadDelivery(Exception):  # noqa: N818
    """The delivery is not Stripe's, or not an event: answered 400. The message says which, and quotes nothing."""

    def __init__(self, problem: Problem) -> None:
        """Say which problem."""
        super().__init__(problem.value)
        self.problem = problem


def verify(body: bytes, signature: str | None, secrets: Iterable[str]) -> str:
    """Return the body as text once one of the secrets has signed it, lately; else raise :class:`BadDelivery`."""
    header = _one_signature_header(signature)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadDelivery(Problem.NOT_UTF8) from None
    problem = "no signing secret"
    for secret in secrets:
        try:
            WebhookSignature.verify_header(text, header, secret, TOLERANCE)
        except SignatureVerificationError as error:
            problem = str(error.args[0])
        else:
            return text
    stale = problem.startswith("Timestamp")
    raise BadDelivery(Problem.OLD_SIGNATURE if stale else Problem.WRONG_SIGNATURE)


def _one_signature_header(signature: str | None) -> str:
    """WSGI joins repeated headers with a comma: two would show as two timestamps, or as an item of no scheme."""
    if not signature:
        raise BadDelivery(Problem.NO_SIGNATURE)
    items = [item.strip().partition("=") for item in signature.split(",")]
    timestamps = sum(name == "t" for name, _, _ in items)
    if timestamps != 1 or not signature.isascii() or not all(separator for _, separator, _ in items):
        raise BadDelivery(Problem.MALFORMED_SIGNATURE)
    return ",".join(name + separator + value for name, separator, value in items)


def read_event(text: str) -> Event:
    """Return the event in the body, or raise :class:`BadDelivery` where it is not one."""
    try:
        body = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise BadDelivery(Problem.NOT_JSON) from None
    match body:
        case {"id": str(event_id), "type": str(event_type), "data": {"object": dict(source)}}:
            return Event(
                id=_storable_id(event_id),
                type=event_type,
                livemode=body.get("livemode"),
                account=body.get("account"),
                object=source,
            )
        case {"id": str(event_id), "type": str(event_type), "related_object": {"url": str(url)}} if _is_thin(body, url):
            return Event(
                id=_storable_id(event_id),
                type=event_type.removeprefix("v1."),
                livemode=body.get("livemode"),
                account=body.get("context"),
                object={},
                related=url,
            )
        case _:
            raise BadDelivery(Problem.NOT_AN_EVENT)


def _is_thin(body: JSONObject, url: str) -> bool:
    """Whether the body is an event notification about an object of API v1."""
    return body.get("object") == "v2.core.event" and url.startswith("/v1/") and url.isascii()


def _refuse_constant(constant: str) -> NoReturn:
    """NaN and Infinity: Python's parser takes them, JSON and Postgres do not."""
    raise ValueError(constant)


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _storable_id(event_id: str) -> str:
    """Return the event's id, or a digest of one that Stripe never makes and Postgres could not hold."""
    if IDENTIFIER.fullmatch(event_id):
        return event_id
    return "evt_sha256_" + hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()


def settle(event: Event, text: str, ledger: Ledger, guards: Guards, stripe_api: StripeAPI | None = None) -> Outcome:
    """Record what the event says, or park it (``text`` is its body).

    Returns only after the commit. Raises :class:`LedgerUnavailable` or :class:`StripeUnavailable`. Nothing of the
    database is held while Stripe is asked.
    """
    match interpret(event, guards, stripe_api.asker(event.account) if stripe_api else ask_nobody):
        case Ignored(reason, lacks):
            return Outcome("ignored", reason, lacks)
        case Unsettled(reason, payment_id):
            return ledger.park(event, reason, payment_id, text)
        case Facts(facts) as told:
            outcome = ledger.record(event.id, facts)
            if outcome.name == "unsettled":
                return ledger.park(event, str(outcome.reason), told.payment_id, text)
            return outcome
