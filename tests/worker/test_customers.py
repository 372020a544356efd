"""Links of Stripe customers to users, from events that name both, in any order."""

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
from support.waiting import WAIT_TIMEOUT, eventually
from webhook.ledger.ledger import Ledger, Outcome

OTHER = "00000000-0000-4000-8000-000000000002"
UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"
CUSTOMER = "cus_1"

Admin = psycopg.Connection[Any]
Deliver = Callable[..., Outcome]


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    admin.execute("insert into auth.users (id) values (%s), (%s)", [USER_ID, OTHER])
    return partial(deliver_to, ledger)


def invoice(name: str = "in_1", **fields: Any) -> dict[str, Any]:
    """Return an invoice that names its customer but no user."""
    return invoice_event(event_id=f"evt_{name}", id=name, user_id=None, customer=CUSTOMER, **fields)


def subscription(user_id: str = USER_ID) -> dict[str, Any]:
    """Return the Checkout Session that started the subscription."""
    name = "checkout.session.completed.subscription"
    return session_event(name, event_id=f"evt_sub_{user_id}", user_id=user_id, customer=CUSTOMER)


def balances(admin: Admin) -> list[int]:
    """Return the balances of USER_ID and OTHER, in this order."""
    rows = admin.execute("select credits_balance from public.users order by id = %s desc", [USER_ID])
    return [balance for (balance,) in rows]


def parked(admin: Admin) -> list[tuple[str, str]]:
    return admin.execute("select event_id, reason from billing.parked_events where resolved_at is null").fetchall()


def test_invoice_of_a_linked_customer_is_recorded(deliver: Deliver, admin: Admin) -> None:
    assert deliver(subscription()) == Outcome("recorded")
    assert deliver(invoice()) == Outcome("recorded")
    assert balances(admin) == [100, 0]


def test_invoice_of_an_unlinked_customer_is_parked_until_linked(deliver: Deliver, admin: Admin) -> None:
    assert deliver(invoice()) == Outcome("parked", "missing_user")
    assert parked(admin) == [("evt_in_1", "missing_user")]
    assert deliver(subscription()) == Outcome("recorded")
    assert (balances(admin), parked(admin)) == ([100, 0], [])


def test_parked_invoices_of_one_customer_are_settled_together(deliver: Deliver, admin: Admin) -> None:
    for name in ("in_1", "in_2", "in_3"):
        deliver(invoice(name))
    deliver(subscription())
    assert (balances(admin), parked(admin)) == ([300, 0], [])


@pytest.mark.parametrize("event", [session_event(customer=CUSTOMER), payment_intent_event(customer=CUSTOMER)])
def test_paid_sale_links_its_customer_to_the_user(deliver: Deliver, admin: Admin, event: dict[str, Any]) -> None:
    deliver(event)
    assert deliver(invoice()) == Outcome("recorded")
    assert balances(admin) == [200, 0]


def test_redelivered_subscription_session_is_a_duplicate(deliver: Deliver) -> None:
    deliver(subscription())
    assert deliver(subscription()) == Outcome("duplicate")


def test_customer_claimed_by_two_users_is_ambiguous(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription())
    deliver(subscription(OTHER))
    assert deliver(invoice()) == Outcome("parked", "ambiguous_customer")
    assert balances(admin) == [0, 0]


def test_sale_stays_after_a_second_claim_of_its_customer(deliver: Deliver, admin: Admin) -> None:
    """A later refund is still taken from the first user."""
    deliver(subscription())
    deliver(invoice())
    deliver(subscription(OTHER))
    deliver(refund_event(payment_intent="in_1", amount=500))
    assert balances(admin) == [50, 0]


def test_sale_with_a_user_ignores_its_customer(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription(OTHER))
    deliver(invoice_event(customer=CUSTOMER))
    assert balances(admin) == [100, 0]


def test_user_named_later_overrides_the_customer(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription(OTHER))
    deliver(session_event(user_id=None, customer=CUSTOMER, payment_intent="pi_1"))
    deliver(payment_intent_event(id="pi_1"))
    assert balances(admin) == [100, 0]


def test_session_of_an_unknown_user_links_no_customer(deliver: Deliver) -> None:
    assert deliver(subscription(UNKNOWN_USER)) == Outcome("ignored", "no_payment")
    assert deliver(invoice()) == Outcome("parked", "missing_user")


def test_customer_link_of_an_erased_user_is_deleted(deliver: Deliver, admin: Admin) -> None:
    deliver(subscription())
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert admin.execute("select * from billing.customers").fetchall() == []


def test_redelivered_sale_of_an_erased_user_links_no_customer(deliver: Deliver, admin: Admin) -> None:
    deliver(session_event(customer=CUSTOMER))
    admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert deliver(session_event(customer=CUSTOMER)) == Outcome("duplicate")
    assert admin.execute("select * from billing.customers").fetchall() == []


def test_invoice_waits_for_a_concurrent_customer_link(deliver: Deliver, database: Database) -> None:
    """Otherwise each transaction would miss the other one, and the invoice would stay parked."""
    link = {"kind": "customer", "customer_id": CUSTOMER, "user_id": USER_ID}
    with (
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        connected(database, "service_role") as linking,
        ThreadPoolExecutor(1) as thread,
    ):
        with linking.transaction():
            assert record(linking, link) == {"outcome": "recorded"}
            delivery = thread.submit(deliver, invoice())
            eventually(lambda: delivery.done() or sessions(watcher, WAITS) == 1)
            assert not delivery.done()
        assert delivery.result(WAIT_TIMEOUT) == Outcome("recorded")
