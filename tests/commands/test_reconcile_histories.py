"""Reconciliation of histories with missing webhooks: random ones, beside live webhooks, and after a killed run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from support.commands import WEBHOOK, started
from support.databases import Database
from support.model import Event, events_of, expected_balances, new_id
from support.recorded import USER_ID, payment_intent_event, refund_event, session_event
from support.shop import Books, described
from support.strategies import deliveries, sales
from support.stripe_stand_in import StripeStandIn
from webhook import cli
from webhook.ledger.ledger import Ledger
from webhook.settings import child_environment

WAIT_TIMEOUT = 60
"""The timeout in seconds. Python starts slowly on a busy machine."""
RECONCILE = ("reconcile", "--since", "1d")
EXAMPLES = int(os.environ.get("RECONCILE_EXAMPLES", "25"))


@pytest.fixture
def books(admin: psycopg.Connection[Any], ledger: Ledger) -> Books:
    return Books(admin, ledger)


def reconcile(database: Database, stripe: StripeStandIn, *arguments: str) -> int:
    runner = CliRunner(env=stripe.settings(database.url))
    return runner.invoke(cli.commands, [*RECONCILE, *arguments]).exit_code


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_balances_after_reconciliation_equal_the_models(
    books: Books, database: Database, stripe: StripeStandIn, data: st.DataObject
) -> None:
    """A random part of the events is delivered, in any order; a second run finds nothing."""
    books.open()
    history = data.draw(st.lists(sales(books.users), min_size=1, max_size=4))
    stripe.objects.clear()
    events = events_of(history)
    stripe.add_events(*events)
    everything = data.draw(deliveries(events))
    arrived = everything[: data.draw(st.integers(0, len(everything)))]
    if data.draw(st.booleans()):
        stripe.delete_events()
    note(described(arrived))
    for event in arrived:
        books.deliver(event)
    assert reconcile(database, stripe, "--dry-run") in (0, 1)
    assert reconcile(database, stripe) in (0, 1)
    assert books.balances() == expected_balances(history, books.users)
    assert books.parked() == 0
    assert reconcile(database, stripe) == 0


def sold(count: int) -> list[Event]:
    """Return the events of ``count`` sales of 100 credits to one user. Every third is refunded in full."""
    events = []
    for number in range(count):
        payment_id = new_id("pi")
        events.append(session_event(event_id=new_id("evt"), id=new_id("cs"), payment_intent=payment_id, amount=1000))
        if number % 3 == 0:
            events.append(refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment_id, amount=1000))
    return events


def state(admin: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """Return the balance of the recorded events' user, and the number of their ledger rows."""
    [row] = admin.execute(
        "select credits_balance, (select count(*) from public.transactions where user_id = users.id)"
        " from public.users where id = %s",
        [USER_ID],
    )
    return row


@pytest.mark.usefixtures("buyer")
def test_run_during_webhooks_grants_each_object_once(books: Books, database: Database, stripe: StripeStandIn) -> None:
    """Four threads deliver every event twice, while runs follow one another."""
    events = sold(90)
    stripe.add_events(*events)
    with ThreadPoolExecutor(4) as pool:
        delivered = [pool.submit(books.deliver, event) for event in events * 2]
        while not all(each.done() for each in delivered):
            assert reconcile(database, stripe) in (0, 1)
        assert {each.result() for each in delivered} <= {"recorded", "duplicate"}
    assert state(books.admin) == (60 * 100, 120)


@pytest.mark.usefixtures("buyer")
@pytest.mark.parametrize("requests", [2, 8, 12])
def test_run_after_a_killed_run_records_the_rest(
    books: Books, database: Database, stripe: StripeStandIn, requests: int
) -> None:
    """kill -9 at one of its requests; the killed run counts as incomplete."""
    stripe.add_events(*sold(180))
    requested, released = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        if len(stripe.requests) >= requests:
            requested.set()
            released.wait(WAIT_TIMEOUT)

    stripe.before_answer = hold
    with started(child_environment(stripe.settings(database.url)), *RECONCILE):
        assert requested.wait(WAIT_TIMEOUT)
    released.set()
    assert books.ledger.covered_until() is None
    assert reconcile(database, stripe) == 1
    assert state(books.admin) == (120 * 100, 240)


def peak_memory(database: Database, stripe: StripeStandIn) -> int:
    """Return a run's peak memory in MiB. A small process starts it, because a child counts its parent's memory."""
    measured = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured, str(WEBHOOK), *RECONCILE],
        env=child_environment(stripe.settings(database.url)),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) // 1024


def test_run_memory_does_not_grow_with_the_number_of_objects(database: Database, stripe: StripeStandIn) -> None:
    """The run handles one page after another."""
    intent = payment_intent_event(user_id=None, credits=None)
    few = peak_memory(database, stripe)
    for number in range(8000):
        payment = intent["data"]["object"] | {"id": f"pi_{number}", "created": int(time.time()) - 60}
        stripe.objects[payment["id"]] = payment
    many = peak_memory(database, stripe)
    assert many < few + 24
    assert many < 150
