"""From the words of a customer's mail to the verdict."""

from __future__ import annotations

import re

from support.customer import Customer
from support.recorded import session_event
from tools.chromium import Page, expect


def search(page: Page, text: str) -> None:
    page.goto("/console")
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")


def test_search_for_a_payment_shows_the_verdict(viewer: Page, customer: Customer) -> None:
    customer.sign_up()
    customer.pay()
    search(viewer, customer.payment)
    expect(viewer.get_by_role("region", name="Verdict")).to_contain_text("100 credits")
    expect(viewer.get_by_role("textbox", name="Reply to the customer")).to_have_value(re.compile("100 credits"))


def test_search_for_an_address_leads_to_the_sale(viewer: Page, customer: Customer) -> None:
    customer.sign_up()
    customer.pay()
    search(viewer, customer.email)
    viewer.get_by_role("link", name=customer.payment).first.click()
    expect(viewer).to_have_url(re.compile(rf"/console/sales/{customer.payment}$"))
    expect(viewer.get_by_role("heading", level=1)).to_contain_text(customer.payment)


def test_search_without_a_result_names_what_was_searched(viewer: Page) -> None:
    search(viewer, "nothing@example.com")
    expect(viewer.get_by_role("region", name="Verdict")).to_contain_text("nothing@example.com")
    expect(viewer.get_by_role("region", name="Searched").get_by_role("listitem").first).to_be_visible()


def test_search_at_stripe_finds_and_records_a_lost_sale(operator: Page, customer: Customer) -> None:
    """The webhook never came, and the account has another address than the payer."""
    customer.sign_up()
    lost = session_event(
        id=f"cs_{customer.name}",
        payment_intent=customer.payment,
        user_id=customer.user,
        customer_details={"email": "work@example.com"},
    )
    customer.shop.stripe.add_events(lost)
    search(operator, "work@example.com")
    operator.get_by_role("button", name="Search at Stripe, too").click()
    operator.get_by_role("button", name=f"Reconcile {customer.payment}").click()
    expect(operator.get_by_role("status")).to_be_visible()
    assert customer.balance() == 100
