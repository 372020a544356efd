"""Every delivery order of the events of one payment, recorded by the SQL functions alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor

from support.databases import Database
from support.recorded import USER_ID, dispute_event, payment_intent_event, refund_event, session_event
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Facts, as_json
from webhook.events.interpret import interpret

PAYMENT = "pi_story"
EVENTS = [
    session_event(credits=100, payment_intent=PAYMENT, amount=1000),
    payment_intent_event(credits=90, id=PAYMENT, amount=1000),
    refund_event(id="re_stays", payment_intent=PAYMENT, amount=300),
    refund_event(id="re_fails", payment_intent=PAYMENT, amount=550),
    refund_event("refund.failed", id="re_fails", payment_intent=PAYMENT, amount=550),
    dispute_event(id="du_1", payment_intent=PAYMENT, amount=400, balance_transactions=[-400]),
    dispute_event(id="du_1", payment_intent=PAYMENT, amount=400, balance_transactions=[-400, 100]),
]
BALANCE = 36
"""Of 90 credits for 1000: 300 is refunded, 400 is disputed, and 100 of the dispute is reinstated."""


def delivery(number: int, event: dict[str, Any]) -> str:
    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False))
    assert isinstance(interpretation, Facts)
    return json.dumps([{"event_id": f"evt_{number}", "facts": [as_json(fact) for fact in interpretation.facts]}])


@pytest.fixture
def cursor(database: Database, admin: psycopg.Connection[Any]) -> Iterator[ClientCursor[Any]]:
    admin.execute("insert into auth.users (id) values (%s)", [USER_ID])
    with psycopg.connect(database.url, cursor_factory=ClientCursor) as connection, connection.cursor() as cursor:
        cursor.execute("set role service_role")
        yield cursor
        connection.rollback()


def test_balance_is_the_same_in_every_order_of_events(cursor: ClientCursor[Any]) -> None:
    """The orders form a tree: a shared beginning is delivered once, and savepoints undo each delivery."""
    deliveries = [delivery(number, event) for number, event in enumerate(EVENTS)]

    def check() -> None:
        cursor.execute(
            "select credits_balance, (select coalesce(sum(amount), 0) from public.transactions) from public.users"
        )
        [(balance, total)] = cursor.fetchall()
        assert balance == total == BALANCE

    def deliver(remaining: list[str]) -> int:
        if not remaining:
            check()
            return 1
        orders = 0
        for index, next_delivery in enumerate(remaining):
            cursor.execute("savepoint before; select billing.record(%s)", [next_delivery])
            orders += deliver(remaining[:index] + remaining[index + 1 :])
            cursor.execute("rollback to savepoint before; release savepoint before")
        return orders

    assert deliver(deliveries) == 5040
