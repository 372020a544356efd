"""Give and take credits in the browser."""

from __future__ import annotations

import pytest

from support.browser import Watch, click_twice
from support.customer import Customer
from tools.chromium import Page, expect


@pytest.fixture
def customer(customer: Customer) -> Customer:
    """A customer with 100 credits."""
    customer.sign_up()
    customer.pay()
    return customer


def preview(page: Page, customer: Customer, credits_: int, *, take: bool = False) -> None:
    """Fill in the form and open its preview."""
    page.goto(f"/console/users/{customer.user}")
    page.get_by_role("link", name="Give or take credits").click()
    page.get_by_label("Take credits" if take else "Give credits").check()
    page.get_by_label("Credits (required)").fill(str(credits_))
    page.get_by_label("Reason").fill("ticket 812")
    page.get_by_label("Description").fill("Sorry for the delay")
    page.get_by_role("button", name="Preview").click()


def test_preview_changes_nothing(operator: Page, customer: Customer) -> None:
    preview(operator, customer, 50)
    expect(operator.get_by_role("row", name="Balance")).to_contain_text("150")
    assert (customer.balance(), customer.actions()) == (100, [])


def test_second_click_gives_nothing_more(operator: Page, customer: Customer) -> None:
    preview(operator, customer, 50)
    click_twice(operator, "Give 50 credits", customer)
    expect(operator.get_by_role("row", name="Sorry for the delay")).to_contain_text("+50")
    assert customer.balance() == 150
    assert customer.actions() == [("adjust", "ann", "console", "ticket 812")]


def test_notice_is_shown_once(operator: Page, customer: Customer) -> None:
    preview(operator, customer, 50)
    operator.get_by_role("button", name="Give 50 credits").click()
    expect(operator.get_by_role("status")).to_contain_text("Balance 100 → 150")
    operator.reload()
    expect(operator.get_by_role("status")).to_have_count(0)


def test_form_that_is_sent_again_gives_nothing_more(operator: Page, customer: Customer) -> None:
    """The preview of a second tab, or of "Confirm form resubmission"."""
    preview(operator, customer, 50)
    html = operator.content()
    for _ in range(2):
        operator.set_content(html)
        operator.get_by_role("button", name="Give 50 credits").click()
        expect(operator.get_by_role("status")).to_contain_text("150")
    assert (customer.balance(), len(customer.actions())) == (150, 1)


def test_debt_needs_a_tick(operator: Page, customer: Customer) -> None:
    preview(operator, customer, 120, take=True)
    operator.get_by_role("button", name="Take 120 credits").click()
    assert customer.balance() == 100
    operator.get_by_label("Make this debt").check()
    operator.get_by_role("button", name="Take 120 credits").click()
    expect(operator.get_by_role("status")).to_be_visible()
    assert customer.balance() == -20


def test_viewer_cannot_open_the_form(viewer: Page, customer: Customer, watch: Watch) -> None:
    watch.statuses.add(403)
    viewer.goto(f"/console/users/{customer.user}/adjust")
    expect(viewer.get_by_role("alert")).to_have_text("Your login may only view.")
    viewer.goto(f"/console/users/{customer.user}")
    expect(viewer.get_by_role("link", name="Give or take credits")).to_have_count(0)


def test_form_that_a_viewer_sends_is_refused(viewer: Page, customer: Customer, watch: Watch) -> None:
    """The form of an operator, in the same browser after another login."""
    watch.statuses.add(403)
    fields = {"direction": "give", "credits": "50", "reason": "mine", "id": "99999999-0000-4000-8000-000000000009"}
    viewer.goto("/console")
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    viewer.evaluate(
        "([url, html]) => { document.body.innerHTML = `<form method=post action=${url}>${html}</form>`;"
        " document.forms[0].submit() }",
        [f"/console/users/{customer.user}/adjust", inputs],
    )
    expect(viewer.get_by_role("alert")).to_have_text("Your login may only view.")
    assert (customer.balance(), customer.actions()) == (100, [])
