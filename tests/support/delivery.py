"""Deliveries without HTTP: an event goes the worker's own way, from its body to the commit."""

from __future__ import annotations

import json
from typing import Any

from webhook.delivery import settle
from webhook.events.event import EventScope, read_event
from webhook.ledger.ledger import Ledger, Outcome


def deliver_to(ledger: Ledger, event: dict[str, Any]) -> Outcome:
    """What becomes of an event, in test mode and without an API key."""
    text = json.dumps(event)
    return settle(read_event(text), text, ledger, EventScope(livemode=False))
