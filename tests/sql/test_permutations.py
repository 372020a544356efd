"""Every order of one full story, over the SQL alone."""

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
STORY = [
    session_event(credits=100, payment_intent=PAYMENT, amount=1000),
    payment_intent_event(credits=90, id=PAYMENT, amount=1000),
    refund_event(id="re_stays", payment_intent=PAYMENT, amount=300),
    refund_event(id="re_fails", payment_intent=PAYMENT, amount=550),
    refund_event("refund.failed", id="re_fails", payment_intent=PAYMENT, amount=550),
    dispute_event(id="du_1", payment_intent=PAYMENT, amount=400, balance_transactions=[-400]),
    dispute_event(id="du_1", payment_intent=PAYMENT, amount=400, balance_transactions=[-400, 100]),
]
LEFT = 36
"""Of 90 credits for 1000: the refund took 300, and of the disputed 400 a quarter came back."""


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


def test_balance_after_every_order_of_a_full_story_is_the_same(cursor: ClientCursor[Any]) -> None:
    """The orders form a tree: what two of them begin with alike is delivered once, and taken back by a savepoint."""
    deliveries = [delivery(number, event) for number, event in enumerate(STORY)]

    def check() -> None:
        cursor.execute(
            "select credits_balance, (select coalesce(sum(amount), 0) from public.transactions) from public.users"
        )
        [(balance, total)] = cursor.fetchall()
        assert balance == total == LEFT

    def deliver(rest: list[str]) -> int:
        if not rest:
            check()
            return 1
        ends = 0
        for index, each in enumerate(rest):
            cursor.execute("savepoint before; select billing.record(%s)", [each])
            ends += deliver(rest[:index] + rest[index + 1 :])
            cursor.execute("rollback to savepoint before; release savepoint before")
        return ends

    assert deliver(deliveries) == 5040
