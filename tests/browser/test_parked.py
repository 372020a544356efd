"""Parked events: retry, assign, discard and bulk retry in the browser."""

from __future__ import annotations

import re

from support.browser import click_twice
from support.customer import Customer, new_customer
from support.shop import Shop
from tools.chromium import Page, expect


def test_retry_after_the_sign_up_grants_the_credits(operator: Page, customer: Customer) -> None:
    customer.pay()
    customer.sign_up()
    operator.goto(f"/console/parked/{customer.event}")
    operator.get_by_role("button", name=f"Retry {customer.event}").click()
    expect(operator.get_by_role("status")).to_have_text(f"{customer.event} is settled.")
    assert (customer.balance(), customer.is_parked()) == (100, False)


def test_second_click_on_retry_grants_nothing_more(operator: Page, customer: Customer) -> None:
    customer.pay()
    customer.sign_up()
    operator.goto(f"/console/parked/{customer.event}")
    click_twice(operator, f"Retry {customer.event}", customer)
    expect(operator.get_by_role("status")).to_contain_text(customer.event)
    assert customer.balance() == 100


def test_assign_to_the_account_of_the_payer_grants_the_credits(operator: Page, customer: Customer) -> None:
    customer.sign_up()
    customer.pay(user_id=None, credits="100", customer_details={"email": customer.email})
    operator.goto(f"/console/parked/{customer.event}")
    operator.get_by_role("link", name=f"Assign it to {customer.email}").click()
    operator.get_by_label("Reason").fill("ticket 812")
    operator.get_by_role("button", name="Preview").click()
    expect(operator.get_by_role("row", name=customer.email)).to_contain_text("+100")
    assert customer.balance() == 0
    click_twice(operator, "Assign the sale", customer)
    expect(operator.get_by_role("status")).to_be_visible()
    assert customer.balance() == 100
    assert customer.actions() == [("assign", "ann", "console", "ticket 812")]


def test_discard_takes_the_event_off_the_list(operator: Page, customer: Customer) -> None:
    customer.pay()
    operator.goto("/console/parked")
    operator.get_by_role("row", name=customer.event).get_by_role("link", name="Discard").click()
    operator.get_by_label("Reason").fill("a test purchase")
    click_twice(operator, "Discard the event", customer)
    expect(operator.get_by_role("status")).to_contain_text("discarded")
    assert not customer.is_parked()
    assert customer.actions() == [("discard", "ann", "console", "a test purchase")]


def test_discard_without_a_reason_is_refused(operator: Page, customer: Customer) -> None:
    customer.pay()
    operator.goto(f"/console/discard?event_id={customer.event}")
    operator.get_by_role("button", name="Discard the event").click()
    expect(operator).to_have_url(re.compile(r"event_id="))
    assert customer.is_parked()


def test_bulk_retry_settles_what_can_be_settled(operator: Page, shop: Shop) -> None:
    customers = [new_customer(shop) for _ in range(3)]
    for each in customers:
        each.pay()
    for each in customers[:2]:
        each.sign_up()
    operator.goto("/console/parked?reason=unknown_user")
    operator.get_by_role("link", name="Retry all of this reason").click()
    operator.get_by_role("button", name=re.compile(r"^Retry \d+ events$")).click()
    expect(operator.get_by_role("status")).to_contain_text("0 left")
    expect(operator.get_by_role("row", name=customers[0].event)).to_contain_text("settled")
    assert [each.is_parked() for each in customers] == [False, False, True]
    assert [each.balance() for each in customers[:2]] == [100, 100]


def test_viewer_sees_no_payload_and_no_button(viewer: Page, customer: Customer) -> None:
    customer.pay()
    viewer.goto(f"/console/parked/{customer.event}")
    expect(viewer.get_by_role("heading", level=1)).to_contain_text(customer.event)
    expect(viewer.get_by_text("Payload")).to_have_count(0)
    expect(viewer.get_by_role("button", name="Retry")).to_have_count(0)
    expect(viewer.get_by_role("link", name=re.compile("Assign|Discard"))).to_have_count(0)
