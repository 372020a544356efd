"""The short path of new sales writes what the long path writes, for any batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.ledger_queries import new_user
from webhook.events.facts import Claim, Fact, Link, Reversal, Sale, as_json

UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"
PAYMENTS, INVOICES = ("pi_1", "pi_2", "pi_3"), ("in_1",)
CUSTOMERS, SUBSCRIPTIONS = ("cus_1", "cus_2"), ("sub_1", "sub_2")
NO_SHORT_PATH = """
create or replace function billing.new_sales(p_deliveries jsonb, p_ids text[]) returns billing.new_sale[]
language sql as $$ select '{}'::billing.new_sale[] $$
"""
STORED = (
    "select user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id from public.transactions",
    "select to_jsonb(sales) - 'recorded_at' from billing.sales",
    "select subject_id, user_id, level, customer_id, created from billing.claims",
    "select reversal_id, version, payment_id, money_amount from billing.reversals",
    "select invoice_id, payment_id from billing.payment_links",
    "select event_id, reason, resolution from billing.parked_events",
    "select id, credits_balance from public.users",
)

Batch = list[Sequence[Fact]]


@st.composite
def deliveries(draw: st.DrawFn, users: Sequence[str]) -> Sequence[Fact]:
    """Return the facts of a delivery. Most are a new sale, alone or with a claim; some values are missing."""
    user, other = draw(st.sampled_from([*users, *users, UNKNOWN_USER])), draw(st.sampled_from(users))
    named = draw(st.sampled_from([user, user, None]))
    payment_id = draw(st.sampled_from([*PAYMENTS, *INVOICES]))
    sale = Sale(
        payment_id,
        draw(st.integers(1, 3)),
        named,
        draw(st.sampled_from([100, 100, 100, 50, None])),
        1000,
        "usd",
        draw(st.sampled_from([True, True, True, False])),
        None if named else draw(st.sampled_from([*SUBSCRIPTIONS, None])),
        draw(st.sampled_from(CUSTOMERS)) if named is None or draw(st.integers(0, 9)) == 0 else None,
        draw(st.booleans()),
    )
    subscription = draw(st.sampled_from([*SUBSCRIPTIONS, None, None]))
    level = draw(st.integers(2, 4) if subscription else st.integers(-1, 1))
    claimed = draw(st.sampled_from([user, user, user, other]))
    claim = Claim(subscription, draw(st.sampled_from(CUSTOMERS)), claimed, level, draw(st.sampled_from([None, 1, 2])))
    reversal = Reversal(draw(st.sampled_from(["re_1", "re_2"])), 1, payment_id, 500, "usd")
    link = Link("inpay_1", draw(st.sampled_from(INVOICES)), draw(st.sampled_from(PAYMENTS)))
    choices = (
        [sale],
        [sale],
        [claim, sale],
        [claim, sale],
        [claim],
        [reversal],
        [link],
        [link, sale],
        [sale, reversal],
    )
    return draw(st.sampled_from(choices))


def stored(admin: psycopg.Connection[Any], batches: Sequence[Batch]) -> list[Any]:
    """Return the results of the batches, and the rows of all tables."""
    found: list[Any] = []
    for number, batch in enumerate(batches):
        called = [
            {"event_id": f"evt_{number}_{position}", "facts": [as_json(fact) for fact in facts]}
            for position, facts in enumerate(batch)
        ]
        found += admin.execute("select billing.record(%s)", [json.dumps(called)]).fetchall()
    return [found, *(sorted(admin.execute(query).fetchall(), key=repr) for query in STORED)]


@pytest.fixture
def users(admin: psycopg.Connection[Any]) -> list[str]:
    return [new_user(admin), new_user(admin)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_short_and_long_path_store_the_same_rows(
    admin: psycopg.Connection[Any], users: list[str], data: st.DataObject
) -> None:
    """Whatever is known already, and whatever else is in the batch."""
    batches = data.draw(st.lists(st.lists(deliveries(users), min_size=1, max_size=3), min_size=2, max_size=5))
    with admin.transaction(force_rollback=True):
        short = stored(admin, batches)
    with admin.transaction(force_rollback=True):
        admin.execute(NO_SHORT_PATH)
        assert stored(admin, batches) == short


def test_short_path_is_taken_by_new_sales(admin: psycopg.Connection[Any], users: list[str]) -> None:
    """Otherwise the comparison would prove nothing."""
    sale = Sale("pi_1", 1, users[0], 100, 1000, "usd", paid=True)
    batch = [{"event_id": "evt_1", "facts": [as_json(Claim(None, "cus_1", users[0], 1)), as_json(sale)]}]
    query = "select cardinality(billing.new_sales(%s, '{pi_1,cus_1}'))"
    assert admin.execute(query, [json.dumps(batch)]).fetchone() == (1,)
    admin.execute("select billing.record(%s)", [json.dumps(batch)])
    assert admin.execute(query, [json.dumps(batch)]).fetchone() == (0,)
