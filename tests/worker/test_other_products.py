"""Payments of other products on the same Stripe account park nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import responses

from support.delivery import deliver_to, post
from support.recorded import USER_ID, invoice_event, payment_intent_event, recorded, session_event
from support.stored_rows import Admin, balance, parked, rows
from support.stripe_api import BASE, LINE, LINES, PRICE, page
from webhook.app import Application
from webhook.delivery import settle
from webhook.events.event import EventScope, read_event
from webhook.ledger.ledger import Ledger, Outcome
from webhook.settings import StripeSettings

UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"
KEY = StripeSettings("rk_test_1")
MakeApp = Callable[..., Application]
BUILDERS = [partial(session_event, credits=None), partial(invoice_event, credits=None)]
"""A one-time sale and a renewal. Only their prices could name credits."""


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("reference", ["order_1234", "42", UNKNOWN_USER])
def test_payment_of_another_product_without_a_key_is_ignored(
    ledger: Ledger, buyer: str, admin: Admin, build: Any, reference: str
) -> None:
    del buyer
    outcome = deliver_to(ledger, build(user_id=reference))
    assert (outcome.name, outcome.reason, parked(admin)) == ("ignored", "no_credits", [])


@pytest.mark.parametrize("reference", ["order_1234", "42", UNKNOWN_USER])
def test_payment_of_another_product_with_a_key_is_ignored(
    make_app: MakeApp, buyer: str, admin: Admin, stripe_api: responses.RequestsMock, reference: str
) -> None:
    del buyer
    price = PRICE | {"metadata": {}}
    stripe_api.get(re.compile(re.escape(LINES)), json=page(LINE | {"price": price}))
    stripe_api.get(re.compile(f"{BASE}/v1/prices/.*"), json=price | {"product": {"id": "prod_1", "metadata": {}}})
    answer = post(make_app(stripe=KEY).test_client(), session_event(user_id=reference, credits=None))
    assert answer.json == {"outcome": "ignored", "reason": "no_credits"}
    assert parked(admin) == []


@pytest.mark.parametrize(("reference", "reason"), [("order_1234", "unknown_user"), (USER_ID, None)])
def test_priced_credits_require_a_uuid(  # noqa: PLR0913, PLR0917 - fixtures
    make_app: MakeApp, buyer: str, admin: Admin, stripe_api: responses.RequestsMock, reference: str, reason: str | None
) -> None:
    del buyer
    stripe_api.get(re.compile(re.escape(LINES)), json=page(LINE))
    post(make_app(stripe=KEY).test_client(), session_event(user_id=reference, credits=None))
    assert [why for _, why in parked(admin)] == ([reason] if reason else [])
    assert balance(admin) == (0 if reason else 200)


@pytest.mark.parametrize("build", BUILDERS)
def test_payment_without_credits_of_our_user_is_parked(ledger: Ledger, buyer: str, build: Any) -> None:
    assert deliver_to(ledger, build(user_id=buyer)) == Outcome("parked", "missing_credits")


def test_subscription_session_of_an_unknown_user_is_ignored(ledger: Ledger, buyer: str) -> None:
    """An affiliate's id in it carries no money."""
    del buyer
    event = session_event("checkout.session.completed.subscription", user_id=UNKNOWN_USER, customer="cus_1")
    assert deliver_to(ledger, event).name == "ignored"


def test_audit_of_another_products_payment_finds_nothing(ledger: Ledger, buyer: str, admin: Admin) -> None:
    del buyer
    deliver_to(ledger, session_event(user_id=UNKNOWN_USER, credits=None))
    admin.execute("update billing.sales set recorded_at = now() - interval '10 minutes'")
    with ledger.snapshot() as check:
        assert list(check("sales")) == []


def test_refund_total_of_another_products_payment_is_ignored(ledger: Ledger, buyer: str) -> None:
    """Without a key the refunds cannot be listed, and nothing of ours is missing."""
    del buyer
    deliver_to(ledger, session_event(user_id=UNKNOWN_USER, credits=None, payment_intent="pi_1"))
    event = recorded("charge.refunded")
    event["data"]["object"]["payment_intent"] = "pi_1"
    assert deliver_to(ledger, event) == Outcome("ignored", "refunds_known")


CAPTURE = "payment_intent.succeeded.manual_capture"
STORIES = {
    "user in the session, credits in the payment": (
        session_event(event_id="evt_a", payment_intent="pi_1", credits=None),
        payment_intent_event(event_id="evt_b", id="pi_1", user_id=None),
    ),
    "captured payment that names the user only": (
        session_event("checkout.session.completed.unpaid", event_id="evt_a", payment_intent="pi_1"),
        payment_intent_event(CAPTURE, event_id="evt_b", id="pi_1", user_id=USER_ID, amount_received=1000),
    ),
    "captured payment of another system's user": (
        session_event("checkout.session.completed.unpaid", event_id="evt_a", payment_intent="pi_1"),
        payment_intent_event(CAPTURE, event_id="evt_b", id="pi_1", user_id="42", amount_received=1000),
    ),
    "captured payment of an unknown user": (
        session_event("checkout.session.completed.unpaid", event_id="evt_a", payment_intent="pi_1"),
        payment_intent_event(CAPTURE, event_id="evt_b", id="pi_1", user_id=UNKNOWN_USER, amount_received=1000),
    ),
}
SIGN_UP = "sign-up"


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("order", list(permutations((0, 1, SIGN_UP))), ids=str)
def test_sale_is_granted_whenever_its_user_signs_up(
    ledger: Ledger, admin: Admin, story: str, order: tuple[Any, ...]
) -> None:
    """After the last event, the parked ones are retried. Nothing stays parked."""
    for step in order:
        if step == SIGN_UP:
            admin.execute("insert into auth.users (id) values (%s)", [USER_ID])
        else:
            deliver_to(ledger, STORIES[story][step])
    for (text,) in rows(admin, "select payload::text from billing.parked_events where payload is not null"):
        settle(read_event(text), text, ledger, EventScope(livemode=False))
    assert (balance(admin), parked(admin)) == (100, [])
