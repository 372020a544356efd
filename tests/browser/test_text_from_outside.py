"""Text that buyers and operators chose, on the pages of the console: visible, and without effect."""

from __future__ import annotations

import pytest

from support.browser import Watch
from support.customer import Customer
from tools.chromium import Page, expect

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
MARKS = {"\x07": r"\x07", "\x1b": r"\x1b", "\u202e": r"\u202e", "\u2066": r"\u2066", "\u2028": r"\u2028"}
"""Control characters, bidirectional marks and a line separator, and what a person sees."""
HOSTILE = f"{MARKUP}{''.join(MARKS)}end"
SEEN = f"{MARKUP}{''.join(MARKS.values())}end"


@pytest.fixture
def page(operator: Page) -> Page:
    """A page of an operator, on which no script may open a dialog."""
    operator.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    return operator


def expect_harmless(page: Page, *seen: str) -> None:
    """Check that the texts are visible as text, and that none of their markup or marks took effect."""
    for each in seen:
        expect(page.get_by_text(each).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    text = page.locator("main").inner_text()
    assert [mark for mark in MARKS if mark in text] == []


def test_payload_of_a_parked_event_is_shown_as_text(page: Page, customer: Customer) -> None:
    customer.pay(customer_details={"email": "a@example.com", "name": HOSTILE})
    page.goto(f"/console/parked/{customer.event}")
    page.get_by_text("Payload").click()
    expect_harmless(page, MARKUP.replace('"', '\\"'))


def test_address_of_a_payer_is_shown_as_text(page: Page, customer: Customer) -> None:
    """The worker stores no address with a space or a mark."""
    address = "<img/src=x/onerror=alert(1)>@example.com"
    customer.pay(customer_details={"email": address})
    for path in ("/console/parked", f"/console/parked/{customer.event}"):
        page.goto(path)
        expect_harmless(page, address)


def test_address_of_an_account_is_shown_as_text(page: Page, customer: Customer) -> None:
    customer.shop.admin.execute("insert into auth.users (id, email) values (%s, %s)", [customer.user, HOSTILE])
    customer.pay()
    for path in (f"/console/users/{customer.user}", f"/console/sales/{customer.payment}"):
        page.goto(path)
        expect_harmless(page, SEEN)


def test_words_of_a_search_are_shown_as_text(page: Page) -> None:
    page.goto("/console")
    page.get_by_role("searchbox").fill(f"x{MARKUP}\u202e@example.com")
    page.keyboard.press("Enter")
    expect_harmless(page, rf"x{MARKUP}\u202e@example.com".lower())


def adjust(page: Page, customer: Customer, reason: str) -> None:
    """Open the preview of an adjustment."""
    customer.sign_up()
    page.goto(f"/console/users/{customer.user}/adjust")
    page.get_by_label("Credits (required)").fill("5")
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Description").fill(MARKUP)
    page.get_by_role("button", name="Preview").click()


def test_reason_and_description_are_shown_as_text(page: Page, customer: Customer) -> None:
    adjust(page, customer, f"because {MARKUP}")
    expect_harmless(page, f"because {MARKUP}", MARKUP)
    page.get_by_role("button", name="Give 5 credits").click()
    expect(page.get_by_role("status")).to_be_visible()
    expect_harmless(page, f"because {MARKUP}", MARKUP)


def test_reason_with_invisible_characters_is_refused(page: Page, customer: Customer, watch: Watch) -> None:
    watch.statuses.add(400)
    adjust(page, customer, f"{MARKUP}\u202e")
    expect(page.get_by_role("alert")).to_contain_text("The reason")
    expect_harmless(page)
    assert customer.actions() == []
