"""Races between events of one sale, through real gunicorn workers and in direct calls of billing.record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.claims_model import Change
from support.databases import Database
from support.ledger_queries import amounts, new_user
from support.model import Event, Payment, Refund, Sale, SaleTerms, events_of, expected_balances, new_id
from support.recorded import invoice_event, invoice_payment_event, refund_event, session_event
from support.strategies import deliveries, sales, stories
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import Worker, working
from webhook.events.event import EventScope, read_event
from webhook.events.facts import SESSION, Facts, as_json
from webhook.events.facts import Sale as SaleFact
from webhook.events.interpret import interpret

IN_FLIGHT = 16

Admin = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def owner(shared_database: Database) -> Iterator[Admin]:
    with psycopg.connect(shared_database.admin_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def worker(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(shared_database.url, Path(tmp_path_factory.mktemp("worker"))) as worker:
        yield worker


def race(worker: Worker, *lanes: Sequence[Event]) -> None:
    """Deliver each lane in order, and the events at the same position at one moment; expect 200 for each."""
    answers = worker.deliver_rounds(list(zip(*lanes, strict=True)))
    assert {answer.status for answer in answers} == {200}


def flood(worker: Worker, events: Sequence[Event]) -> None:
    """Deliver all events, IN_FLIGHT at a time; expect 200 for each."""
    rounds = [events[first : first + IN_FLIGHT] for first in range(0, len(events), IN_FLIGHT)]
    assert {answer.status for answer in worker.deliver_rounds(rounds)} == {200}


def invoice(user_id: str, name: str) -> Event:
    return invoice_event(
        event_id=new_id("evt"),
        id=f"in_{name}",
        subscription=f"sub_{name}",
        user_id=user_id,
        credits=50,
        amount_paid=1000,
    )


def link(name: str, payment_id: str) -> Event:
    return invoice_payment_event(
        event_id=new_id("evt"), id=new_id("inpay"), invoice=f"in_{name}", payment_intent=payment_id
    )


def refund(payment_id: str) -> Event:
    return refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment_id, amount=1000)


def test_invoices_racing_refunds_of_linked_payments_leave_0(worker: Worker, owner: Admin) -> None:
    """A refund has only the payment's id; the link from payment to invoice is already recorded."""
    user, names = new_user(owner), [new_id("s") for _ in range(200)]
    flood(worker, [link(name, f"pi_{name}") for name in names])
    race(worker, [invoice(user, name) for name in names], [refund(f"pi_{name}") for name in names])
    assert sum(amounts(owner, user)) == 0


def test_invoices_racing_links_to_refunded_payments_leave_0(worker: Worker, owner: Admin) -> None:
    """The refunds are already recorded."""
    user, names = new_user(owner), [new_id("s") for _ in range(100)]
    flood(worker, [refund(f"pi_{name}") for name in names])
    race(worker, [invoice(user, name) for name in names], [link(name, f"pi_{name}") for name in names])
    assert sum(amounts(owner, user)) == 0


def test_refunds_of_both_payments_of_an_invoice_count_once(worker: Worker, owner: Admin) -> None:
    """Both refunds arrive at the same moment."""
    user, names = new_user(owner), [new_id("s") for _ in range(100)]
    flood(worker, [invoice(user, name) for name in names])
    flood(worker, [link(name, f"pi_{name}_{part}") for name in names for part in "ab"])
    race(worker, [refund(f"pi_{name}_a") for name in names], [refund(f"pi_{name}_b") for name in names])
    assert sum(amounts(owner, user)) == 0


def test_sessions_racing_their_invoices_grant_credits_once(worker: Worker, owner: Admin) -> None:
    user, names = new_user(owner), [new_id("s") for _ in range(100)]
    sessions = [
        session_event(
            event_id=new_id("evt"),
            id=new_id("cs"),
            payment_intent=f"pi_{name}",
            invoice=f"in_{name}",
            user_id=user,
            credits=50,
            amount=1000,
        )
        for name in names
    ]
    race(worker, sessions, [invoice(user, name) for name in names])
    assert sum(amounts(owner, user)) == 50 * len(names)


def test_invoices_racing_their_customers_sessions_are_granted(worker: Worker, owner: Admin) -> None:
    """An invoice has only a customer; the session contains that customer's user id."""
    user, names = new_user(owner), [new_id("s") for _ in range(100)]
    invoices, sessions = [], []
    for name in names:
        common = {"credits": 50, "customer": f"cus_{name}", "subscription": f"sub_{name}"}
        invoices.append(invoice_event(event_id=new_id("evt"), id=f"in_{name}", user_id=None, **common))
        began = "checkout.session.completed.subscription"
        sessions.append(session_event(began, event_id=new_id("evt"), id=new_id("cs"), user_id=user, **common))
    race(worker, invoices, sessions)
    assert sum(amounts(owner, user)) == 50 * len(names)
    assert owner.execute("select from billing.parked_events where resolved_at is null").rowcount == 0


def test_sales_racing_their_refunds_leave_0(worker: Worker, owner: Admin) -> None:
    user = new_user(owner)
    terms = SaleTerms(user, 50, 1000)
    history = [Sale({"session": terms}, [Payment([Refund(1000, ["succeeded"])])]) for _ in range(200)]
    race(worker, *zip(*(sale.events() for sale in history), strict=True))
    assert sum(amounts(owner, user)) == 0


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_balances_after_concurrent_events_match_the_model(worker: Worker, owner: Admin, data: st.DataObject) -> None:
    users = [new_user(owner) for _ in range(3)]
    history = data.draw(st.lists(sales(users), min_size=4, max_size=10))
    flood(worker, data.draw(deliveries(events_of(history))))
    assert {user: sum(amounts(owner, user)) for user in users} == expected_balances(history, users)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_users_of_concurrent_sales_match_the_model(worker: Worker, owner: Admin, data: st.DataObject) -> None:
    """Claims, gifts and renewals of few customers: each claim may move the others' sales."""
    users = [new_user(owner) for _ in range(4)]
    drawn = data.draw(stories(users[:2], users[2], users[3]))
    story = replace(drawn, changes=[], users=users, erased=[])
    flood(worker, data.draw(deliveries([step for step in story.steps() if not isinstance(step, Change)])))
    assert {user: sum(amounts(owner, user)) for user in users} == story.balances()


def test_invoice_and_refund_that_waited_for_a_link_leave_0(shared_database: Database, owner: Admin) -> None:
    """Both looked up links before the link was committed; afterwards they must not run concurrently."""
    user, name = new_user(owner), new_id("s")
    with ThreadPoolExecutor(2) as pool, ExitStack() as opened:
        linking, *racing = [opened.enter_context(psycopg.connect(shared_database.url)) for _ in range(3)]
        call(linking, link(name, f"pi_{name}"))
        events = (invoice(user, name), refund(f"pi_{name}"))
        called = {pool.submit(call, each, event): each for each, event in zip(racing, events, strict=True)}
        eventually(lambda: waiting(owner) == 2)
        linking.commit()
        # Each call runs as far as it can before either commits.
        eventually(lambda: sum(each.done() for each in called) + waiting(owner) == 2)
        for done in as_completed(called, timeout=WAIT_TIMEOUT):
            called[done].commit()
    assert sum(amounts(owner, user)) == 0


def call(connection: Admin, event: Event) -> None:
    """Record an event in a transaction that stays open."""
    connection.execute("set local role service_role")
    connection.execute("select billing.record(%s)", [call_of(event)])


def waiting(connection: Admin) -> int:
    """The number of sessions that wait for a sale's lock."""
    query = """
        select from pg_locks join pg_database on pg_database.oid = database
        where locktype = 'advisory' and not granted and datname = current_database()
    """
    return connection.execute(query).rowcount


def call_of(event: Event) -> str:
    """The argument of billing.record for one event."""
    interpretation = interpret(read_event(json.dumps(event)), EventScope(livemode=False))
    assert isinstance(interpretation, Facts)
    return json.dumps([{"event_id": event["id"], "facts": [as_json(fact) for fact in interpretation.facts]}])


def record_calls(url: str, calls: Sequence[str], start: threading.Barrier | None = None) -> None:
    """Execute the calls one after the other, as the worker does, but without its retry."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set role service_role")
        if start:
            start.wait()
        for call in calls:
            connection.execute("select billing.record(%s)", [call])


def test_calls_with_two_users_in_opposite_order_never_deadlock(shared_database: Database, owner: Admin) -> None:
    """Each call records one fact per user."""
    users = [new_user(owner), new_user(owner)]

    def call(order: Sequence[str]) -> str:
        facts = [SaleFact(new_id("pi"), SESSION, user, 1, 100, "usd", paid=True) for user in order]
        return json.dumps([{"event_id": new_id("evt"), "facts": [as_json(fact) for fact in facts]}])

    connections, rounds = 8, 40
    start = threading.Barrier(connections, timeout=WAIT_TIMEOUT)
    with ThreadPoolExecutor(connections) as pool:
        ordered = [users if number % 2 else users[::-1] for number in range(connections)]
        calls = [[call(order) for _ in range(rounds)] for order in ordered]
        for done in [pool.submit(record_calls, shared_database.url, each, start) for each in calls]:
            done.result(timeout=60)
    assert [sum(amounts(owner, user)) for user in users] == [connections * rounds] * 2
