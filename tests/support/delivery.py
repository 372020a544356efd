"""Deliveries in this process: through Flask's test client, or without HTTP to the worker's code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from support.recorded import sign
from webhook.delivery import settle
from webhook.events.event import EventScope, read_event
from webhook.ledger.ledger import Ledger, Outcome

SECRET = "whsec_only_for_tests"
"""The secret that signs deliveries by default."""
OLDER_SECRET = "whsec_older"
"""A second secret of the worker, as during a rotation."""

Post = Callable[..., TestResponse]
"""Posts an event to an app, as the fixture ``post`` does."""


def deliver_to(ledger: Ledger, event: dict[str, Any]) -> Outcome:
    """Return the outcome of an event, in test mode and without an API key."""
    text = json.dumps(event)
    return settle(read_event(text), text, ledger, EventScope(livemode=False))


def post(client: FlaskClient, event: Any, signature: str | None = None, *, secret: str = SECRET) -> TestResponse:
    """Return the response to an event (or the bytes of a body), signed now unless a signature is given."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    headers = {"Stripe-Signature": sign(body, secret) if signature is None else signature}
    return client.post("/webhook", data=body, headers=headers)
