"""Every delivery order of the events of one payment, recorded by the SQL functions alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor

from support.databases import Database
from support.operators import NOT_LATEST, UNKNOWN_PAYMENT
from support.recorded import (
    USER_ID,
    dispute_event,
    invoice_event,
    invoice_payment_event,
    payment_intent_event,
    refund_event,
    session_event,
)
from support.roles import BOB, sign_up
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


OTHER = "00000000-0000-4000-8000-000000000002"
START = "checkout.session.completed.subscription"
CLAIMS = [
    session_event(START, user_id=None, client_reference_id=OTHER, subscription="sub_1", customer="cus_1"),
    session_event(user_id=OTHER, client_reference_id=USER_ID, customer="cus_1", payment_intent="pi_gift"),
    invoice_event(id="in_1", user_id=None, subscription="sub_1", customer="cus_1"),
    invoice_event(id="in_2", subscription="sub_1", customer="cus_1", created=1),
    refund_event(id="re_1", payment_intent="in_1", amount=300),
]
"""A subscription of OTHER by its session, and of USER_ID by an invoice. Its customer also buys a gift for OTHER."""


def test_balance_is_the_same_in_every_order_of_events(cursor: ClientCursor[Any]) -> None:
    assert deliver_in_every_order(cursor, EVENTS, [BALANCE]) == 5040


def test_users_of_sales_are_the_same_in_every_order(cursor: ClientCursor[Any], admin: psycopg.Connection[Any]) -> None:
    """The renewal less its refund is USER_ID's, like the invoice that names them."""
    admin.execute("insert into auth.users (id) values (%s)", [OTHER])
    assert deliver_in_every_order(cursor, CLAIMS, [70 + 100, 100]) == 120


def deliver_in_every_order(cursor: ClientCursor[Any], events: Sequence[dict[str, Any]], balances: list[int]) -> int:
    """Check the balances of USER_ID and the others after each order, and return the number of orders.

    The orders form a tree: a shared beginning is delivered once, and savepoints undo each delivery.
    """
    deliveries = [delivery(number, event) for number, event in enumerate(events)]

    def check() -> None:
        cursor.execute(
            "select credits_balance,"
            " (select coalesce(sum(amount), 0) from public.transactions where user_id = users.id)"
            " from public.users order by id desc"
        )
        assert cursor.fetchall() == [(balance, balance) for balance in balances]

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

    return deliver(deliveries)


# Operators

LINKED = [
    session_event(credits=100, payment_intent=PAYMENT, amount=1000),
    invoice_payment_event(id="inpay_1", invoice="in_story", payment_intent=PAYMENT),
    refund_event(id="re_stays", payment_intent=PAYMENT, amount=300),
]
USER, CREDITS, WITHDRAWAL = "assign the user", "assign the credits", "withdraw the user"
LATEST_USER = "select number from billing.assignments where user_id is not null"


class Operator:
    """A session that acts as the worker and as an operator, and undoes what is refused."""

    def __init__(self, cursor: ClientCursor[Any]) -> None:
        self.cursor = cursor
        self.deliveries = {str(number): delivery(number, event) for number, event in enumerate(LINKED)}

    def run(self, step: str) -> bool:
        """Return whether the step was not refused."""
        if step in self.deliveries:
            self.query("service_role", "select billing.record(%s)", self.deliveries[step])
            return True
        self.cursor.execute("savepoint act")
        try:
            self._act(step)
        except psycopg.Error as error:
            if error.sqlstate not in (UNKNOWN_PAYMENT[0], NOT_LATEST[0]):
                raise
            self.cursor.execute("rollback to savepoint act")
            return False
        return True

    def _act(self, step: str) -> None:
        call = "select billing.assign(%s, %s, %s, 'a mistake', 'ann', gen_random_uuid(), %s)"
        if step == USER:
            self.query("billing_operator", call, PAYMENT, BOB, None, None)
        elif step == CREDITS:
            self.query("billing_operator", call, "in_story", None, 50, None)
        else:
            [(number,)] = self.query("service_role", LATEST_USER) or [(0,)]
            self.query("billing_operator", call, PAYMENT, None, None, number)

    def query(self, role: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        self.cursor.execute(f"set local role {role}")
        return self.cursor.execute(statement, values).fetchall()


@pytest.fixture
def operator(database: Database, admin: psycopg.Connection[Any]) -> Iterator[Operator]:
    sign_up(admin, USER_ID, BOB)
    with psycopg.connect(database.operator_url, cursor_factory=ClientCursor) as connection:
        yield Operator(connection.cursor())
        connection.rollback()


def test_assigned_sale_is_the_same_in_every_order(operator: Operator) -> None:
    """An act on what is not known yet is refused. A withdrawal counts unless another assignment came later."""

    def check(done: list[str]) -> None:
        rows = operator.query("service_role", "select id::text, credits_balance from public.users")
        assert {user: balance for user, balance in rows if balance} == {USER_ID if WITHDRAWAL in done else BOB: 35}

    def take(done: list[str], remaining: list[str]) -> int:
        if not remaining:
            check(done)
            return 1
        orders = 0
        for index, step in enumerate(remaining):
            rest = remaining[:index] + remaining[index + 1 :]
            operator.cursor.execute("savepoint before")
            if operator.run(step):
                orders += take([*done, step], rest)
            elif step == WITHDRAWAL and USER in done:
                orders += take(done, rest)
            operator.cursor.execute("rollback to savepoint before; release savepoint before")
        return orders

    assert take([], [*operator.deliveries, USER, CREDITS, WITHDRAWAL]) == 54
