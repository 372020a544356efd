"""The currency of every object that moves money, without a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.recorded import dispute_event, invoice_event, payment_intent_event, refund_event, session_event
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Unresolvable
from webhook.events.interpret import interpret

BUILDERS = (session_event, payment_intent_event, invoice_event, refund_event)


@pytest.mark.parametrize("value", ["USD", "us", "usdt", "u$d", "usd\n", "", None, 840])
@pytest.mark.parametrize("build", [*BUILDERS, lambda **fields: dispute_event(balance_transactions=[-1000], **fields)])
def test_malformed_currency_is_unreadable(build: Callable[..., dict[str, Any]], value: Any) -> None:
    """The ledger accepts only three lower-case letters, so such an event is parked and not answered 503."""
    event = read_event(json.dumps(build(currency=value)))
    assert interpret(event, EventScope(livemode=False)) == Unresolvable("unreadable")
