"""Reconciliation of random histories of which webhooks told a part: beside them, after them, and killed half-way."""

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

PATIENCE = 60
"""Seconds after which a test fails rather than waits on: a Python starts slowly on a busy machine."""
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
def test_balances_after_reconciliation_are_the_models_whatever_webhooks_arrived(
    books: Books, database: Database, stripe: StripeStandIn, data: st.DataObject
) -> None:
    """A random part of the events is delivered, in any order; the run adds the rest, and a second one nothing."""
    books.open()
    history = data.draw(st.lists(sales(books.users), min_size=1, max_size=4))
    stripe.objects.clear()
    events = events_of(history)
    stripe.happened(*events)
    everything = data.draw(deliveries(events))
    arrived = everything[: data.draw(st.integers(0, len(everything)))]
    if data.draw(st.booleans()):
        stripe.forget_events()
    note(described(arrived))
    for event in arrived:
        books.deliver(event)
    assert reconcile(database, stripe, "--dry-run") in (0, 1)
    assert reconcile(database, stripe) in (0, 1)
    assert books.balances() == expected_balances(history, books.users)
    assert books.parked() == 0
    assert reconcile(database, stripe) == 0


def sold(count: int) -> list[Event]:
    """So many sales of 100 credits to one user, of which every third is refunded in full."""
    events = []
    for number in range(count):
        payment_id = new_id("pi")
        events.append(session_event(event_id=new_id("evt"), id=new_id("cs"), payment_intent=payment_id, amount=1000))
        if number % 3 == 0:
            events.append(refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment_id, amount=1000))
    return events


def state(admin: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """The balance of the user of recorded events, and how many rows made it."""
    [row] = admin.execute(
        "select credits_balance, (select count(*) from public.transactions where user_id = users.id)"
        " from public.users where id = %s",
        [USER_ID],
    )
    return row


@pytest.mark.usefixtures("buyer")
def test_run_beside_webhooks_for_the_same_objects_grants_each_once(
    books: Books, database: Database, stripe: StripeStandIn
) -> None:
    """Four threads deliver every event twice, while one run follows another."""
    events = sold(90)
    stripe.happened(*events)
    with ThreadPoolExecutor(4) as pool:
        delivered = [pool.submit(books.deliver, event) for event in events * 2]
        while not all(each.done() for each in delivered):
            assert reconcile(database, stripe) in (0, 1)
        assert {each.result() for each in delivered} <= {"recorded", "duplicate"}
    assert state(books.admin) == (60 * 100, 120)


@pytest.mark.usefixtures("buyer")
@pytest.mark.parametrize("requests", [2, 8, 12])
def test_run_after_one_that_was_killed_records_the_rest(
    books: Books, database: Database, stripe: StripeStandIn, requests: int
) -> None:
    """kill -9 at some request of it; it counts as not finished."""
    stripe.happened(*sold(180))
    asked, let_go = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        if len(stripe.requests) >= requests:
            asked.set()
            let_go.wait(PATIENCE)

    stripe.before_answer = hold
    with started(child_environment(stripe.settings(database.url)), *RECONCILE):
        assert asked.wait(PATIENCE)
    let_go.set()
    assert books.ledger.covered_until() is None
    assert reconcile(database, stripe) == 1
    assert state(books.admin) == (120 * 100, 240)


def peak_memory(database: Database, stripe: StripeStandIn) -> int:
    """The most that a run held, in MiB: measured by a small process, whose size a new one begins with."""
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


def test_run_holds_no_more_memory_for_more_objects(database: Database, stripe: StripeStandIn) -> None:
    """Whatever the range: a page after the other."""
    intent = payment_intent_event(user_id=None, credits=None)
    few = peak_memory(database, stripe)
    for number in range(8000):
        payment = intent["data"]["object"] | {"id": f"pi_{number}", "created": int(time.time()) - 60}
        stripe.objects[payment["id"]] = payment
    many = peak_memory(database, stripe)
    assert many < few + 24
    assert many < 150
