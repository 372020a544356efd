"""One balance, whatever the order: the ledger against the model."""

from __future__ import annotations

import json
import os
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from support.model import events_of, expected_balances
from support.recorded import refund_event, session_event
from support.shop import Books, described
from support.strategies import deliveries, sales
from webhook.ledger.ledger import Ledger

EXAMPLES = int(os.environ.get("SETTLEMENT_EXAMPLES", "150"))


@pytest.fixture
def books(admin: psycopg.Connection[Any], ledger: Ledger) -> Books:
    return Books(admin, ledger)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(data=st.data())
def test_balances_after_any_set_of_events_in_any_order_are_the_models(books: Books, data: st.DataObject) -> None:
    books.open()
    history = data.draw(st.lists(sales(books.users), min_size=1, max_size=4))
    events = data.draw(deliveries(events_of(history)))
    note(described(events))
    for event in events:
        assert books.deliver(event) in ("recorded", "duplicate", "ignored", "parked")
        books.balances()
    assert books.balances() == expected_balances(history, books.users)
    assert books.parked() == 0

    size = books.size()
    assert {books.deliver(event) for event in events} <= {"duplicate", "ignored"}
    assert books.size() == size


def test_sale_told_again_after_a_refund_too_small_for_a_credit_adds_nothing(books: Books) -> None:
    """Two refunds take a credit together; the first of them alone takes none, and has no row."""
    books.open()
    sold = session_event(user_id=books.users[0], credits=167, payment_intent="pi_1", amount=1000)
    refunds = [refund_event(id=f"re_{money}", payment_intent="pi_1", amount=money) for money in (1, 5)]
    for event in (sold, *refunds):
        books.deliver(event)
    size = books.size()
    assert [books.deliver(event) for event in (sold, *refunds)] == ["duplicate"] * 3
    assert books.size() == size
    assert books.balances()[books.users[0]] == 166


def test_refunds_too_small_for_a_credit_each_have_at_most_a_row_under_their_own_id(books: Books) -> None:
    """The row of whichever takes a credit at last, and of one that gives it back when it fails."""
    books.open()
    sold = session_event(user_id=books.users[0], credits=10, payment_intent="pi_1", amount=1000)
    books.deliver(sold)
    told = []
    for name, money in (("re_1", 60), ("re_2", 60), ("re_3", 100), ("re_4", 90)):
        books.deliver(refund_event(id=name, payment_intent="pi_1", amount=money))
        told.append((books.rows()[-1], books.balances()[books.users[0]]))
    assert told == [
        (("pi_1", 10, 1000), 10),
        (("re_2", -1, -60), 9),
        (("re_3", -1, -100), 8),
        (("re_4", -1, -90), 7),
    ]
    books.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=60, status="failed"))
    assert (books.rows()[-1], books.balances()[books.users[0]]) == (("re_1", 1, 0), 8)


def test_refund_that_fails_gives_its_credit_back_under_its_own_id(books: Books) -> None:
    """An earlier refund that was too small for a credit of its own gets no row for it."""
    books.open()
    books.deliver(session_event(user_id=books.users[0], credits=10, payment_intent="pi_1", amount=1000))
    for name in ("re_1", "re_2"):
        books.deliver(refund_event(id=name, payment_intent="pi_1", amount=60))
    books.deliver(refund_event(id="re_2", payment_intent="pi_1", amount=60, status="failed"))
    assert (books.rows()[-1], books.balances()[books.users[0]]) == (("re_2:2", 1, 60), 10)


def test_settling_reads_a_few_rows_however_long_the_ledger_is(books: Books) -> None:
    """A sale, its repetition, its refund and a batch, in a session that made its plans while the ledger was short."""
    books.open()
    user = books.users[0]
    told = {"user_id": user, "credits": 9, "money_amount": 9, "currency": "usd"}
    sale = told | {"kind": "sale", "version": 1, "paid": True, "customer_id": None}
    refund = told | {"kind": "reversal", "version": 1, "money_amount": 5}

    def record(name: str) -> None:
        sold, refunded = sale | {"payment_id": f"pi_{name}"}, refund | {"payment_id": f"pi_{name}", "id": f"re_{name}"}
        batch = [sale | {"payment_id": f"pi_{name}{number}"} for number in range(8)]
        for facts in ([sold], [sold], [refunded], batch):
            deliveries = [{"event_id": "evt_1", "facts": [fact]} for fact in facts]
            books.admin.execute("select billing.record(%s)", [json.dumps(deliveries)])

    for number in range(8):  # after five calls a plan is made for good
        record(f"early{number}")
    books.admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " select %s, 1, 'PURCHASE', 'pi_' || n, 'pi_' || n, 1, 'usd' from generate_series(1, 5000) as n",
        [user],
    )
    books.admin.execute(
        "insert into billing.sales select 'pi_' || n, 1, %s, 1, 1, 'usd', true from generate_series(1, 5000) as n",
        [user],
    )

    def rows_read() -> int:
        [(rows,)] = books.admin.execute(
            "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"
            " where relname in ('transactions', 'sales')"
        )
        return int(rows)

    with books.admin.transaction():
        before = rows_read()  # some of what came before the transaction may be in it
        record("late")
        assert rows_read() - before < 200
