"""The console and Stripe: the search button, candidates that only Stripe has, reconciling one payment, retries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import responses

from support.console import VIEWER_TOKEN, bearer, console_settings
from support.databases import Database
from support.delivery import deliver_to
from support.pages import Browser
from support.recorded import recorded, refund_event, session_event
from support.roles import ALICE, balance, contents, sign_up
from support.stripe_stand_in import StripeStandIn, serving
from webhook.ledger.ledger import Ledger
from webhook.settings import StripeSettings
from worker.conftest import MakeApp

PAID_AT = int(datetime(2026, 11, 24, 9, 30, tzinfo=UTC).timestamp())
PAYER = "payer@work.example"
Admin = psycopg.Connection[Any]


@pytest.fixture
def stripe(stripe_api: responses.RequestsMock) -> Iterator[StripeStandIn]:
    """A stand-in for Stripe's API over real HTTP, with an account without objects."""
    with serving(StripeStandIn()) as stand_in:
        stripe_api.add_passthru(stand_in.url)
        yield stand_in


@pytest.fixture
def ann(make_app: MakeApp, database: Database, stripe: StripeStandIn) -> Browser:
    """Ann, an operator, of a console with a key."""
    settings = console_settings(database, stripe=StripeSettings("rk_test_1", stripe.url))
    return Browser(make_app(console=settings).test_client())


@pytest.fixture
def bob(make_app: MakeApp, database: Database, stripe: StripeStandIn) -> Browser:
    """Bob, a viewer, of a console with a key."""
    settings = console_settings(database, stripe=StripeSettings("rk_test_1", stripe.url))
    return Browser(make_app(console=settings).test_client(), VIEWER_TOKEN)


def sell(stripe: StripeStandIn, **fields: Any) -> dict[str, Any]:
    """Add a session of 100 credits for 10.00 dollars, whose event never arrived."""
    event = session_event(**{"id": "cs_1", "payment_intent": "pi_1", "amount": 1000, "user_id": ALICE} | fields)
    event["data"]["object"]["customer_details"] = {"email": PAYER}
    stripe.add_events(event, at=PAID_AT)
    return event


def test_payment_that_only_stripe_has_is_found_and_reconciled(
    ann: Browser, stripe: StripeStandIn, admin: Admin
) -> None:
    """A mail that quotes a pi_…, and whose webhook was lost: one search, two buttons."""
    sign_up(admin, ALICE)
    sell(stripe)
    stripe.add_events(refund_event(id="re_1", payment_intent="pi_1", amount=500), at=PAID_AT)
    page = ann.send(ann.get("/console"), "Search", q="pi_1")
    page = ann.send(page, "Search at Stripe, too")
    assert "Stripe has the payment pi_1, and it is not known here. To do: reconcile this payment" in page.text
    assert "Stripe: payment_intents/pi_1: 1 found" in page.text
    page = ann.send(page, "Reconcile pi_1")
    assert page.path == "/console/sales/pi_1"
    assert "was missing and is recorded now: +50 credits" in page.text
    assert balance(admin, ALICE) == 50
    assert "Nothing was missing." in ann.post("/console/reconcile", id="pi_1").text
    assert balance(admin, ALICE) == 50


def test_address_of_the_payer_finds_a_sale_on_another_account(
    ann: Browser, stripe: StripeStandIn, ledger: Ledger, admin: Admin
) -> None:
    """ "I paid 10 dollars on Tuesday with my work e-mail"."""
    sign_up(admin, ALICE)
    deliver_to(ledger, sell(stripe))
    page = ann.send(ann.get("/console"), "Search", q=f"{PAYER} 10 2026-11-24")
    assert f"Nothing is known about {PAYER} 10 2026-11-24 here." in page.text
    page = ann.send(page, "Search at Stripe, too")
    assert "Found: sale pi_1" in page.text
    assert "a@example.com" in page.text
    assert "Move to another account or change the credits…" in page.links


def test_candidates_of_stripe_are_compared(ann: Browser, stripe: StripeStandIn, ledger: Ledger, admin: Admin) -> None:
    sign_up(admin, ALICE)
    deliver_to(ledger, sell(stripe))
    sell(stripe, id="cs_2", payment_intent="pi_2")
    page = ann.get(f"/console/search?q={PAYER}&stripe=1")
    assert "2 results: compare account, payer, amount, time and state." in page.text
    assert page.links["Open"] == "/console/sales/pi_1"
    assert "Reconcile pi_2" in page.buttons
    assert "paid; not known here" in page.text


def test_user_without_a_purchase_leads_to_the_search_at_stripe(
    ann: Browser, stripe: StripeStandIn, admin: Admin
) -> None:
    hostile = "<b>\u202e@example.com"
    admin.execute("insert into auth.users (id, email) values (%s, %s)", [ALICE, hostile])
    page = ann.get(f"/console/users/{ALICE}")
    assert "<b>" not in page.html
    [button] = [each for each in page.buttons if each.startswith("Search at Stripe for")]
    assert "searched" in ann.send(page, button).text.lower()
    assert stripe.requests


def test_viewer_searches_at_stripe_and_reconciles_nothing(bob: Browser, stripe: StripeStandIn, admin: Admin) -> None:
    sign_up(admin, ALICE)
    sell(stripe)
    before = contents(admin)
    page = bob.get("/console/search?q=pi_1&stripe=1")
    assert "it is not known here" in page.text
    assert "Reconcile pi_1" not in page.buttons
    assert bob.post("/console/reconcile", id="pi_1").status == 403
    assert contents(admin) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pi_none", "Stripe does not have it in test mode"),
        ("cus_1", "a customer may have many sales"),
        ("x y", "The id of the event or payment is missing or wrong."),
    ],
)
def test_reconcile_of_something_else_says_why_not(ann: Browser, admin: Admin, name: str, message: str) -> None:
    before = contents(admin)
    page = ann.post("/console/reconcile", id=name)
    assert page.status == 409
    assert message in page.text
    assert contents(admin) == before


def test_reconcile_without_a_key_names_the_setting(make_app: MakeApp, database: Database) -> None:
    page = Browser(make_app(console=console_settings(database)).test_client()).post("/console/reconcile", id="pi_1")
    assert page.status == 409
    assert "Set STRIPE_API_KEY" in page.text


def test_reconcile_parks_what_it_cannot_settle(ann: Browser, stripe: StripeStandIn, admin: Admin) -> None:
    sell(stripe, user_id=None)
    page = ann.post("/console/reconcile", id="pi_1")
    assert page.path == "/console/sales/pi_1"
    assert "cs_1 is parked as missing_user" in page.text
    assert "Assign the user…" in page.links
    assert admin.execute("select reason from billing.parked_events").fetchall() == [("missing_user",)]


def test_stripe_that_fails_is_named(ann: Browser, stripe: StripeStandIn) -> None:
    stripe.error_status = lambda path, number: 500  # noqa: ARG005
    page = ann.get("/console/search?q=pi_1&stripe=1")
    assert page.status == 503
    assert "Stripe does not answer" in page.text
    assert ann.post("/console/reconcile", id="pi_1").status == 503


def test_retry_reads_the_corrected_metadata_at_stripe(
    ann: Browser, stripe: StripeStandIn, ledger: Ledger, admin: Admin
) -> None:
    sign_up(admin, ALICE)
    event = sell(stripe, user_id=None)
    assert deliver_to(ledger, event).name == "parked"
    stripe.objects["cs_1"]["metadata"]["user_id"] = ALICE
    page = ann.post("/console/retry", event_id=event["id"])
    assert f"{event['id']} is settled." in page.text
    assert balance(admin, ALICE) == 100


def test_charge_of_a_card_is_found_by_amount_and_day(ann: Browser, stripe: StripeStandIn) -> None:
    source = recorded("charge.refunded")["data"]["object"] | {
        "id": "ch_1",
        "payment_intent": "pi_1",
        "amount": 1000,
        "amount_refunded": 0,
        "refunded": False,
        "created": PAID_AT,
        "currency": "usd",
        "payment_method_details": {"type": "card", "card": {"last4": "4242"}},
    }
    stripe.objects["ch_1"] = source
    page = ann.get("/console/search?q=4242+10.00+usd+2026-11-24&stripe=1")
    assert "Stripe has the payment pi_1" in page.text
    assert page.buttons[-1] == "Reconcile pi_1"


@pytest.mark.parametrize(("site", "requests"), [("cross-site", 0), ("same-site", 0), ("same-origin", 1), ("none", 1)])
def test_link_of_another_site_searches_the_database_only(
    make_app: MakeApp, database: Database, stripe: StripeStandIn, site: str, requests: int
) -> None:
    """Otherwise it could use up the rate limit of the account."""
    client = make_app(console=console_settings(database, stripe=StripeSettings("rk_test_1", stripe.url))).test_client()
    headers = bearer() | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    page = client.get("/console/search?stripe=1&q=ch_1", headers=headers)
    assert (page.status_code, len(stripe.requests)) == (200, requests)
    assert ("Search at Stripe, too" in page.text) == (requests == 0)
