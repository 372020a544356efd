"""Forms and previews of the console show whose sale it is, who paid, and what Stripe reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from support.console import console_settings
from support.databases import Database
from support.delivery import deliver_to
from support.pages import Browser
from support.recorded import refund_event, session_event
from support.roles import ALICE, BOB, CAROL, contents, sign_up
from webhook.ledger.ledger import Ledger
from worker.conftest import MakeApp

PAYMENT = "pi_1"
EVENT = "evt_1"
FORM = f"/console/assign?name={EVENT}"
Admin = psycopg.Connection[Any]
Deliver = Callable[..., str]


@pytest.fixture
def ann(make_app: MakeApp, database: Database) -> Browser:
    """Ann, an operator. One action may move 500 credits."""
    return Browser(make_app(console=console_settings(database, max_credits=500)).test_client())


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    """Deliver a paid session of 100 credits for 10.00 by a@example.com. Alice and Bob have accounts."""
    sign_up(admin, ALICE, BOB)

    def deliver(**fields: Any) -> str:
        values = {"event_id": EVENT, "user_id": ALICE, "payment_intent": PAYMENT, "amount": 1000, "customer": None}
        event = session_event(**values | fields)
        event["created"] = 1795529520  # 2026-11-24, a Tuesday
        event["data"]["object"]["customer_details"]["email"] = "a@example.com"
        return deliver_to(ledger, event).name

    return deliver


def preview(ann: Browser, **fields: str) -> str:
    """Return the text of the preview of an assignment."""
    return ann.post("/console/assign/preview", **{"name": EVENT, "reason": "a test"} | fields).text


@pytest.mark.parametrize("path", [FORM, f"/console/discard?event_id={EVENT}"], ids=["assign", "discard"])
def test_form_shows_the_payer_and_the_payment(ann: Browser, deliver: Deliver, path: str) -> None:
    deliver(user_id=CAROL)
    text = ann.get(path).text
    assert "Payer a@example.com" in text
    assert "Stripe reports 100 credits, 10.00 USD, paid on Tuesday, 2026-11-24" in text


def test_form_of_a_settled_sale_shows_its_account(ann: Browser, deliver: Deliver) -> None:
    deliver()
    text = ann.get(f"/console/assign?name={PAYMENT}").text
    assert f"Account now a@example.com {ALICE}" in text
    assert "Stripe reports 100 credits, 10.00 USD, paid" in text


def test_form_of_an_unknown_name_is_shown_without_facts(ann: Browser, deliver: Deliver) -> None:
    assert deliver
    for name in ("evt_none", "x%20y", "%00", ""):
        page = ann.get(f"/console/assign?name={name}")
        assert (page.status, "Stripe reports" in page.text) == (200, False)


def test_form_marks_fields_and_names_the_limit(ann: Browser, deliver: Deliver) -> None:
    deliver(user_id=CAROL)
    text = ann.get(FORM).text
    for expected in ("Account (optional)", "Credits (optional)", "Reason (required)", "at most 500"):
        assert expected in text


def test_preview_names_both_accounts_by_their_addresses(ann: Browser, deliver: Deliver) -> None:
    deliver()
    text = preview(ann, name=PAYMENT, user=BOB)
    assert f"Account now a@example.com {ALICE}" in text
    assert f"Account afterwards b@example.com {BOB}" in text


def test_preview_warns_if_somebody_else_paid(ann: Browser, deliver: Deliver) -> None:
    deliver(user_id=CAROL)
    warning = (
        "The payer's address is a@example.com, the account's is b@example.com. "
        "Ask for an answer from a@example.com before you assign."
    )
    assert warning in preview(ann, user=BOB)
    assert "Ask for an answer" not in preview(ann, user=ALICE)


def test_preview_ignores_the_case_of_an_address(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(user_id=CAROL)
    admin.execute("update auth.users set email = 'A@Example.com' where id = %s", [ALICE])
    assert "Ask for an answer" not in preview(ann, user=ALICE)


@pytest.mark.parametrize(("typed", "warns"), [("500", True), ("100", False), ("", False)])
def test_preview_warns_of_other_credits_than_reported(
    ann: Browser, deliver: Deliver, typed: str, *, warns: bool
) -> None:
    deliver(user_id=CAROL)
    warning = "Stripe reports 100 credits for this payment. You typed 500."
    assert (warning in preview(ann, user=ALICE, credits=typed)) is warns


def test_preview_compares_with_stripe_after_an_assignment(ann: Browser, deliver: Deliver) -> None:
    """The number that an operator assigned before is not one that Stripe reports."""
    deliver()
    page = ann.post("/console/assign/preview", name=PAYMENT, credits="300", reason="a test")
    ann.send(page, "Assign the sale")
    assert "Stripe reports 100 credits for this payment. You typed 300." in preview(ann, name=PAYMENT, credits="300")


def test_discard_of_a_paid_event_warns(ann: Browser, deliver: Deliver) -> None:
    deliver(user_id=CAROL)
    assert "This payment is paid." in ann.get(f"/console/discard?event_id={EVENT}").text


def test_discard_of_a_refund_does_not_warn(ann: Browser, ledger: Ledger) -> None:
    event = refund_event(id="re_1", event_id="evt_2", payment_intent=PAYMENT, amount=500)
    event["livemode"] = True
    assert deliver_to(ledger, event).name == "parked"
    text = ann.get("/console/discard?event_id=evt_2").text
    assert "Stripe reports a refund, 5.00 USD" in text
    assert "is paid" not in text


@pytest.mark.parametrize(
    "path",
    ["/console/assign/preview", f"/console/users/{ALICE}/adjust/preview", "/console/retry", "/console/reconcile"],
)
def test_reload_of_an_action_says_that_nothing_changed(ann: Browser, deliver: Deliver, admin: Admin, path: str) -> None:
    deliver(user_id=CAROL)
    before = contents(admin)
    page = ann.get(path)
    assert (page.status, "Nothing was changed" in page.text) == (200, True)
    back = next(href for text, href in page.links.items() if text.startswith(("Open the form", "Back to")))
    assert ann.get(back).status == 200
    assert contents(admin) == before


def test_story_explains_its_words(ann: Browser, deliver: Deliver) -> None:
    deliver(user_id=CAROL)
    for path in (f"/console/parked/{EVENT}", f"/console/users/{ALICE}"):
        text = ann.get(path).text
        assert "What the words mean" in text
        assert "Held Credits that a running generation has reserved" in text


def test_debt_preview_offers_the_safe_button_first(ann: Browser, deliver: Deliver) -> None:
    deliver()
    fields = {"direction": "take", "credits": "150", "reason": "a test"}
    page = ann.post(f"/console/users/{ALICE}/adjust/preview", **fields)
    assert page.buttons[-2:] == ["Take only the 100 available", "Take 150 credits"]


def test_preview_of_a_move_warns_who_loses_credits(ann: Browser, deliver: Deliver) -> None:
    """The payer of a settled sale is not known any more, so the addresses cannot be compared."""
    warning = "This takes credits from a@example.com. Ask for an answer"
    deliver()
    assert warning in preview(ann, name=PAYMENT, user=BOB)
    assert warning not in preview(ann, name=PAYMENT, credits="200")


def test_tables_of_a_moved_sale_name_addresses(ann: Browser, deliver: Deliver) -> None:
    deliver()
    page = ann.post("/console/assign/preview", name=PAYMENT, user=BOB, reason="a test")
    page = ann.send(page, "Assign the sale")
    ledger = page.text.partition("Cause and event")[2].partition("What Stripe reports")[0]
    assert "a@example.com" in ledger
    assert "b@example.com" in ledger
    assert f"{PAYMENT} Stripe b@example.com" in page.text.partition("Assignments by operators")[2]
