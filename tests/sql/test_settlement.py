"""Balances do not depend on the delivery order: the ledger is compared with a model."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from support.claims_model import Change, Story
from support.model import events_of, expected_balances
from support.operator_model import Act, Operators
from support.recorded import refund_event, session_event
from support.shop import Books, described
from support.strategies import deliveries, incomplete_sales, operators_acts, sales, stories
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
def test_balances_in_any_delivery_order_match_the_model(books: Books, data: st.DataObject) -> None:
    """Redelivery of every event then changes nothing."""
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


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(data=st.data())
def test_assigned_sales_in_any_order_match_the_model(books: Books, data: st.DataObject) -> None:
    """Operators act at any time between the events. Redelivery of every event then changes nothing."""
    books.open()
    operators = Operators(books.admin)
    history = data.draw(st.lists(sales(books.users) | incomplete_sales(books.users), min_size=1, max_size=3))
    events = data.draw(deliveries(events_of(history)))
    steps = data.draw(st.permutations([*events, *data.draw(operators_acts(history, books.users))]))
    for step in steps:
        note(str(step) if isinstance(step, Act) else described([step]))
        if isinstance(step, Act):
            operators.take(step)
        else:
            books.deliver(step)
            operators.act_again()
        books.balances()
    operators.act_again()
    own = {payment.id for sale in history for payment in sale.payments}

    def assert_as_in_the_model() -> None:
        assert books.balances() == operators.balances(history, books.users)
        assert books.parked_reasons().keys() & own == operators.unsettled(history)

    assert_as_in_the_model()
    rows, _ = books.size()
    assert {books.deliver(event) for event in events} <= {"duplicate", "ignored", "parked"}
    assert_as_in_the_model()
    assert books.size()[0] == rows


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(data=st.data())
def test_users_of_sales_in_any_order_match_the_model(books: Books, data: st.DataObject) -> None:
    """Gifts, invoices, sessions, refunds, a new and an erased user. Then a redelivery changes nothing."""
    books.open()
    late, users, erased = str(uuid4()), books.users[:2], books.users[2]
    story = data.draw(stories(users, late, erased))
    steps = data.draw(st.permutations(story.steps()))
    note(described(steps))
    for step in steps:
        books.take(step)
    books.retry("unknown_user")
    books.users = list(story.users)
    assert books.balances() == story.balances()
    assert_unowned_sales_are_listed(books, story)

    size = books.size()
    for step in steps:
        if not isinstance(step, Change):
            books.deliver(step)
    assert (books.balances(), books.size()) == (story.balances(), size)


def assert_unowned_sales_are_listed(books: Books, story: Story) -> None:
    """Each paid sale without an owner is parked, with the reason, unless its user was erased."""
    listed = books.parked_reasons()
    for sale in story.sales:
        if sale.user_id or set(story.erased) & story.claimants(sale):
            continue
        reason = {0: "missing_user", 1: None}.get(len(story.claimants(sale)), "ambiguous_customer")
        assert listed.get(sale.payment_id) == reason


def test_redelivery_after_a_refund_below_one_credit_adds_nothing(books: Books) -> None:
    """Two refunds together take one credit; the first alone takes none and has no row."""
    books.open()
    sold = session_event(user_id=books.users[0], credits=167, payment_intent="pi_1", amount=1000)
    refunds = [refund_event(id=f"re_{money}", payment_intent="pi_1", amount=money) for money in (1, 5)]
    for event in (sold, *refunds):
        books.deliver(event)
    size = books.size()
    assert [books.deliver(event) for event in (sold, *refunds)] == ["duplicate"] * 3
    assert books.size() == size
    assert books.balances()[books.users[0]] == 166


def test_refund_below_one_credit_has_at_most_one_row(books: Books) -> None:
    """A row belongs to the refund that completes a credit, or to the failed refund that returns it."""
    books.open()
    sold = session_event(user_id=books.users[0], credits=10, payment_intent="pi_1", amount=1000)
    books.deliver(sold)
    observed = []
    for name, money in (("re_1", 60), ("re_2", 60), ("re_3", 100), ("re_4", 90)):
        books.deliver(refund_event(id=name, payment_intent="pi_1", amount=money))
        observed.append((books.rows()[-1], books.balances()[books.users[0]]))
    assert observed == [
        (("pi_1", 10, 1000), 10),
        (("re_2", -1, -60), 9),
        (("re_3", -1, -100), 8),
        (("re_4", -1, -90), 7),
    ]
    books.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=60, status="failed"))
    assert (books.rows()[-1], books.balances()[books.users[0]]) == (("re_1", 1, 0), 8)


def test_refund_that_completes_a_credit_has_the_row(books: Books) -> None:
    """The order of the ids has no influence: the new refund is booked after those that have waited."""
    books.open()
    books.deliver(session_event(user_id=books.users[0], credits=10, payment_intent="pi_1", amount=1000))
    for name in ("re_2", "re_1"):
        books.deliver(refund_event(id=name, payment_intent="pi_1", amount=60))
    assert books.rows() == [("pi_1", 10, 1000), ("re_1", -1, -60)]


def test_failed_refund_returns_its_credit_under_its_own_id(books: Books) -> None:
    """An earlier refund below one credit gets no row."""
    books.open()
    books.deliver(session_event(user_id=books.users[0], credits=10, payment_intent="pi_1", amount=1000))
    for name in ("re_1", "re_2"):
        books.deliver(refund_event(id=name, payment_intent="pi_1", amount=60))
    books.deliver(refund_event(id="re_2", payment_intent="pi_1", amount=60, status="failed"))
    assert (books.rows()[-1], books.balances()[books.users[0]]) == (("re_2:2", 1, 60), 10)


def test_settlement_reads_few_rows_of_a_long_ledger(books: Books) -> None:
    """It covers a sale, its redelivery, its refund, claims and a batch, with plans made for a short ledger."""
    books.open()
    user = books.users[0]
    terms = {"user_id": user, "credits": 9, "money_amount": 9, "currency": "usd"}
    sale = terms | {"kind": "sale", "version": 1, "paid": True, "customer_id": None}
    refund = terms | {"kind": "reversal", "version": 1, "money_amount": 5}
    claim = {"kind": "claim", "user_id": user, "level": 1}

    def record(name: str) -> None:
        sold, refunded = sale | {"payment_id": f"pi_{name}"}, refund | {"payment_id": f"pi_{name}", "id": f"re_{name}"}
        batch = [sale | {"payment_id": f"pi_{name}{number}"} for number in range(8)]
        names = {"subscription_id": f"sub_{name}", "customer_id": f"cus_{name}"}
        renewal = sale | names | {"payment_id": f"in_{name}", "user_id": None}
        claims = [claim | {"customer_id": f"cus_{name}"}, claim | names | {"level": 3}]
        for facts in ([sold], [sold], [refunded], [renewal], claims, batch):
            deliveries = [{"event_id": "evt_1", "facts": [fact]} for fact in facts]
            books.admin.execute("select billing.record(%s)", [json.dumps(deliveries)])

    for number in range(8):
        record(f"early{number}")
    long_tables = {
        "auth.users (id)": "gen_random_uuid()",
        "public.transactions (user_id, amount, type, stripe_id, payment_id)": (
            "%(user)s, 1, 'PURCHASE', 'pi_' || n, 'pi_' || n"
        ),
        "billing.sales (payment_id, version, credits, paid, subscription_id, customer_id)": (
            "'pi_' || n, 1, 1, true, 'sub_' || n, 'cus_' || n"
        ),
        "billing.claims (subject_id, user_id, level, customer_id)": "'sub_' || n, %(user)s, 3, 'cus_' || n",
        "billing.reversals": "'re_' || n, 1, 'pi_' || n, 1, 'usd', 'evt_1'",
    }
    for table, values in long_tables.items():
        query = f"insert into {table} select {values} from generate_series(1, 5000) as n"
        books.admin.execute(query, {"user": user})

    def rows_read() -> dict[str, int]:
        query = "select relname, (seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"
        tables = ["transactions", "sales", "claims", "reversals", "users"]
        return dict(books.admin.execute(f"{query} where relname = any (%s)", [tables]).fetchall())

    with books.admin.transaction():
        before = rows_read()  # it may include statements from before the transaction
        record("late")
        assert max(rows - before[table] for table, rows in rows_read().items()) < 200
