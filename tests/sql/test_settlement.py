"""One balance, whatever the order: the ledger against the model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from support.databases import Database
from support.delivery import deliver_to
from support.model import Event, deliveries, events_of, expected_balances, sales
from support.recorded import refund_event, session_event
from webhook.ledger.ledger import Ledger

EXAMPLES = int(os.environ.get("SETTLEMENT_EXAMPLES", "150"))


class Shop:
    """A database with three users, and the worker's own way into it."""

    def __init__(self, admin: psycopg.Connection[Any], ledger: Ledger) -> None:
        self.admin = admin
        self.ledger = ledger
        self.users: list[str] = []

    def open(self) -> None:
        """Three new users: the ledger is append-only, so no example can clean up after another."""
        query = "insert into auth.users (id) select gen_random_uuid() from generate_series(1, 3) returning id::text"
        self.users = [user for (user,) in self.admin.execute(query)]

    def deliver(self, event: Event) -> str:
        return deliver_to(self.ledger, event).name

    def rows(self) -> list[tuple[str, int, int]]:
        """The ledger, oldest first: stripe_id, credits, money."""
        query = "select stripe_id, amount, money_amount from public.transactions order by created_at, stripe_id"
        return [(name, amount, money) for name, amount, money in self.admin.execute(query)]

    def balances(self) -> dict[str, int]:
        """The balances, which are the ledger's sums at every moment."""
        rows = self.admin.execute(
            "select u.id::text, u.credits_balance, coalesce(sum(t.amount), 0) from public.users u"
            " left join public.transactions t on t.user_id = u.id where u.id = any (%s::uuid[]) group by u.id",
            [self.users],
        ).fetchall()
        assert all(balance == total for _, balance, total in rows)
        return {user: balance for user, balance, _ in rows}

    def parked(self) -> int:
        """How many events wait: for what another event of their sale tells."""
        return self.admin.execute("select from billing.parked_events where resolved_at is null").rowcount

    def size(self) -> tuple[Any, ...]:
        [row] = self.admin.execute(
            "select (select count(*) from public.transactions), (select count(*) from billing.parked_events)"
        ).fetchall()
        return row


@pytest.fixture
def shop(database: Database, admin: psycopg.Connection[Any]) -> Iterator[Shop]:
    ledger = Ledger(database.url)
    yield Shop(admin, ledger)
    ledger.close()


def told(events: Sequence[Event]) -> str:
    """The events of a failing example, one line each."""
    lines = []
    for event in events:
        source = event["data"]["object"]
        shown = ("id", "payment_intent", "amount", "amount_total", "amount_received", "status", "payment_status")
        fields = {key: source[key] for key in shown if key in source}
        entries = [entry["amount"] for entry in source.get("balance_transactions", [])]
        lines.append(f"{event['id']} {event['type']} {fields} {source.get('metadata') or ''} {entries or ''}")
    return "\n".join(lines)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(data=st.data())
def test_balances_after_any_set_of_events_in_any_order_are_the_models(shop: Shop, data: st.DataObject) -> None:
    shop.open()
    history = data.draw(st.lists(sales(shop.users), min_size=1, max_size=4))
    events = data.draw(deliveries(events_of(history)))
    note(told(events))
    for event in events:
        assert shop.deliver(event) in ("recorded", "duplicate", "ignored", "parked")
        shop.balances()
    assert shop.balances() == expected_balances(history, shop.users)
    assert shop.parked() == 0

    size = shop.size()
    assert {shop.deliver(event) for event in events} <= {"duplicate", "ignored"}
    assert shop.size() == size


def test_sale_told_again_after_a_refund_too_small_for_a_credit_adds_nothing(shop: Shop) -> None:
    """Two refunds take a credit together; the first of them alone takes none, and has no row."""
    shop.open()
    sold = session_event(user_id=shop.users[0], credits=167, payment_intent="pi_1", amount=1000)
    refunds = [refund_event(id=f"re_{money}", payment_intent="pi_1", amount=money) for money in (1, 5)]
    for event in (sold, *refunds):
        shop.deliver(event)
    size = shop.size()
    assert [shop.deliver(event) for event in (sold, *refunds)] == ["duplicate"] * 3
    assert shop.size() == size
    assert shop.balances()[shop.users[0]] == 166


def test_refunds_too_small_for_a_credit_each_have_at_most_a_row_under_their_own_id(shop: Shop) -> None:
    """The row of whichever takes a credit at last, and of one that gives it back when it fails."""
    shop.open()
    sold = session_event(user_id=shop.users[0], credits=10, payment_intent="pi_1", amount=1000)
    shop.deliver(sold)
    told = []
    for name, money in (("re_1", 60), ("re_2", 60), ("re_3", 100), ("re_4", 90)):
        shop.deliver(refund_event(id=name, payment_intent="pi_1", amount=money))
        told.append((shop.rows()[-1], shop.balances()[shop.users[0]]))
    assert told == [
        (("pi_1", 10, 1000), 10),
        (("re_2", -1, -60), 9),
        (("re_3", -1, -100), 8),
        (("re_4", -1, -90), 7),
    ]
    shop.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=60, status="failed"))
    assert (shop.rows()[-1], shop.balances()[shop.users[0]]) == (("re_1", 1, 0), 8)


def test_settling_reads_a_few_rows_however_long_the_ledger_is(shop: Shop) -> None:
    """A sale, its repetition, its refund and a batch, in a session that made its plans while the ledger was short."""
    shop.open()
    user = shop.users[0]
    told = {"user_id": user, "credits": 9, "money_amount": 9, "currency": "usd"}
    sale = told | {"kind": "sale", "version": 1, "paid": True, "customer_id": None}
    refund = told | {"kind": "reversal", "version": 1, "money_amount": 5}

    def record(name: str) -> None:
        sold, refunded = sale | {"payment_id": f"pi_{name}"}, refund | {"payment_id": f"pi_{name}", "id": f"re_{name}"}
        batch = [sale | {"payment_id": f"pi_{name}{number}"} for number in range(8)]
        for facts in ([sold], [sold], [refunded], batch):
            deliveries = [{"event_id": "evt_1", "facts": [fact]} for fact in facts]
            shop.admin.execute("select billing.record(%s)", [json.dumps(deliveries)])

    for number in range(8):  # after five calls a plan is made for good
        record(f"early{number}")
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)"
        " select %s, 1, 'PURCHASE', 'pi_' || n, 'pi_' || n, 1, 'usd' from generate_series(1, 5000) as n",
        [user],
    )
    shop.admin.execute(
        "insert into billing.sales select 'pi_' || n, 1, %s, 1, 1, 'usd', true from generate_series(1, 5000) as n",
        [user],
    )

    def rows_read() -> int:
        [(rows,)] = shop.admin.execute(
            "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables"
            " where relname in ('transactions', 'sales')"
        )
        return int(rows)

    with shop.admin.transaction():
        before = rows_read()  # some of what came before the transaction may be in it
        record("late")
        assert rows_read() - before < 200
