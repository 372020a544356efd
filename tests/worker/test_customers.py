"""Who a Stripe customer is: learned from what names both, in either order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.delivery import deliver_to
from support.ledger_queries import WAITS, sessions
from support.recorded import USER_ID, invoice_event, payment_intent_event, refund_event, session_event
from support.roles import connected, record
from support.waiting import PATIENCE, eventually
from webhook.ledger.ledger import Ledger, Outcome

OTHER = "00000000-0000-4000-8000-000000000002"
NOBODY = "00000000-0000-4000-8000-000000000000"
CUSTOMER = "cus_1"

Admin = psycopg.Connection[Any]
Deliver = Callable[..., Outcome]


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    admin.execute("insert into auth.users (id) values (%s), (%s)", [USER_ID, OTHER])
    return partial(deliver_to, ledger)


def invoice(name: str = "in_1", **fields: Any) -> dict[str, Any]:
    """An invoice that names its customer alone."""
    return invoice_event(event_id=f"evt_{name}", id=name, user_id=None, customer=CUSTOMER, **fields)


def subscription(user_id: str = USER_ID) -> dict[str, Any]:
    """The session that began the subscription."""
    name = "checkout.session.completed.subscription"
    return session_event(name, event_id=f"evt_sub_{user_id}", user_id=user_id, customer=CUSTOMER)


def balances(admin: Admin) -> list[int]:
    """What the user and the other one have."""
    rows = admin.execute("select credits_balance from public.users order by id = %s desc", [USER_ID])
    return [balance for (balance,) in rows]


def waiting(admin: Admin) -> list[tuple[str, str]]:
    return admin.execute("select event_id, reason from billing.parked_events where resolved_at is null").fetchall()


def test_invoice_of_a_known_customer_is_recorded(deliver: Deliver, admin: Admin) -> None:
    assert deliver(subscription()) == Outcome("recorded")
    assert deliver(invoice()) == Outcome("recorded")
    assert balances(admin) == [100, 0]


def test_invoice_of_an_unknown_customer_waits_and_is_settled_when_that_is_learned(
    deliver: Deliver, admin: Admin
) -> None:
    assert deliver(invoice()) == Outcome("parked", "missing_user")
    assert waiting(admin) == [("evt_in_1", "missing_user")]
    assert deliver(subscription()) == Outcome("recorded")
    assert (balances(admin), waiting(admin)) == ([100, 0], [])


def test_invoices_that_waited_together_are_settled_together(deliver: Deliver, admin: Admin) -> None:
    for name in ("in_1", "in_2", "in_3"):
        deliver(invoice(name))
    deliver(subscription())
    assert (balances(admin), waiting(admin)) == ([300, 0], [])


@pytest.mark.parametrize("event", [session_event(customer=CUSTOMER), payment_intent_event(customer=CUSTOMER)])
def test_paid_sale_tells_who_its_customer_is(deliver: Deliver, admin: Admin, event: dict[str, Any]) -> None:
    deliver(event)
    assert deliver(invoice()) == Outcome("recorded")
    assert balances(admin) == [200, 0]


def test_session_told_again_is_a_duplicate(deliver: Deliver) -> None:
    deliver(subscription())
    assert deliver(subscription()) == Outcome("duplicate")


def test_customer_that_two_users_claim_stands_for_none(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription())
    deliver(subscription(OTHER))
    assert deliver(invoice()) == Outcome("parked", "ambiguous_customer")
    assert balances(admin) == [0, 0]


def test_sale_of_a_customer_that_a_second_user_claims_later_stays_and_can_be_refunded(
    deliver: Deliver, admin: Admin
) -> None:
    deliver(subscription())
    deliver(invoice())
    deliver(subscription(OTHER))
    deliver(refund_event(payment_intent="in_1", amount=500))
    assert balances(admin) == [50, 0]


def test_sale_that_names_its_user_asks_for_no_customer(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription(OTHER))
    deliver(invoice_event(customer=CUSTOMER))
    assert balances(admin) == [100, 0]


def test_user_named_later_goes_before_the_customers(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription(OTHER))
    deliver(session_event(user_id=None, customer=CUSTOMER, payment_intent="pi_1"))
    deliver(payment_intent_event(id="pi_1"))
    assert balances(admin) == [100, 0]


def test_session_of_an_unknown_user_is_parked_and_teaches_nothing(deliver: Deliver) -> None:
    assert deliver(subscription(NOBODY)) == Outcome("parked", "unknown_user")
    assert deliver(invoice()) == Outcome("parked", "missing_user")


def test_customer_of_an_erased_user_is_forgotten(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription())
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert admin.execute("select * from billing.customers").fetchall() == []


def test_sale_of_an_erased_user_told_again_does_not_tell_who_its_customer_is(deliver: Deliver, admin: Admin) -> None:
    deliver(session_event(customer=CUSTOMER))
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert deliver(session_event(customer=CUSTOMER)) == Outcome("duplicate")
    assert admin.execute("select * from billing.customers").fetchall() == []


def test_invoice_waits_for_a_delivery_that_is_learning_who_its_customer_is(
    deliver: Deliver, database: Database
) -> None:
    """Else each would miss what the other tells, and nobody would settle the sale."""
    learned = {"kind": "customer", "customer_id": CUSTOMER, "user_id": USER_ID}
    with (
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        connected(database, "service_role") as learning,
        ThreadPoolExecutor(1) as thread,
    ):
        with learning.transaction():
            assert record(learning, learned) == {"outcome": "recorded"}
            told = thread.submit(deliver, invoice())
            eventually(lambda: told.done() or sessions(watcher, WAITS) == 1)
            assert not told.done()
        assert told.result(PATIENCE) == Outcome("recorded")
