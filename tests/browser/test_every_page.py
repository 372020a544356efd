"""Rules that each page of the console keeps: accessibility in light and dark, a narrow screen, the keyboard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from browser.conftest import OpenPage, State
from support.browser import Watch, violations
from support.customer import Customer, new_customer
from support.recorded import refund_event
from support.shop import Shop
from tools.chromium import Page, expect

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def buyer(shop: Shop) -> Customer:
    """A customer with a purchase, a refund, spent credits and an adjustment."""
    buyer = new_customer(shop)
    buyer.sign_up()
    buyer.pay()
    shop.deliver(refund_event(id=f"re_{buyer.name}", payment_intent=buyer.payment, charge=None, amount=250))
    return buyer


@pytest.fixture(scope="module")
def waiting(shop: Shop) -> Customer:
    """A customer with an account, whose event is parked because it names no user."""
    waiting = new_customer(shop)
    waiting.sign_up()
    waiting.pay(user_id=None, credits="100", customer_details={"email": waiting.email})
    return waiting


@pytest.fixture
def phone(open_page: OpenPage, state: State) -> Page:
    """A page of an operator on a phone."""
    return open_page(storage_state=state("ann"), viewport=PHONE, is_mobile=True)


def preview_of_adjustment(page: Page, buyer: Customer, _: Customer) -> None:
    page.goto(f"/console/users/{buyer.user}/adjust")
    page.get_by_label("Take credits").check()
    page.get_by_label("Credits (required)").fill("500")
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Preview")


def preview_of_assignment(page: Page, _: Customer, waiting: Customer) -> None:
    page.goto(f"/console/assign?name={waiting.event}&user={waiting.user}")
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Preview")


def opened_payload(page: Page, _: Customer, waiting: Customer) -> None:
    page.goto(f"/console/parked/{waiting.event}")
    page.get_by_text("Payload").click()


def at(path: str) -> Callable[[Page, Customer, Customer], None]:
    """Return a function that opens the path, with the ids of the customers in it."""
    return lambda page, buyer, waiting: page.goto(path.format(buyer=buyer, waiting=waiting)) and None


PAGES: dict[str, Callable[[Page, Customer, Customer], None]] = {
    "home": at("/console"),
    "search with a result": at("/console/search?q={buyer.payment}"),
    "search without a result": at("/console/search?q=nothing@example.com"),
    "sale": at("/console/sales/{buyer.payment}"),
    "user": at("/console/users/{buyer.user}"),
    "parked events": at("/console/parked"),
    "discarded events": at("/console/parked?state=discarded"),
    "parked event": opened_payload,
    "adjust": at("/console/users/{buyer.user}/adjust"),
    "adjust, preview": preview_of_adjustment,
    "assign": at("/console/assign?name={waiting.event}"),
    "assign, preview": preview_of_assignment,
    "discard": at("/console/discard?event_id={waiting.event}"),
    "bulk retry": at("/console/retry-all"),
    "unknown address": at("/console/no-such-page"),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_grave_violation_in_light_and_dark(
    operator: Page, watch: Watch, buyer: Customer, waiting: Customer, name: str
) -> None:
    watch.statuses.add(404)
    PAGES[name](operator, buyer, waiting)
    for scheme in ("light", "dark"):
        operator.emulate_media(color_scheme=scheme)
        assert (scheme, violations(operator)) == (scheme, [])


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_narrow_screen(phone: Page, watch: Watch, buyer: Customer, waiting: Customer, name: str) -> None:
    """Wide tables scroll in a region of their own."""
    watch.statuses.add(404)
    PAGES[name](phone, buyer, waiting)
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_login_keeps_the_rules_of_every_page(page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.goto("/console/login")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_dark_scheme_has_a_dark_background(operator: Page) -> None:
    operator.emulate_media(color_scheme="dark")
    operator.goto("/console")
    color = operator.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(each) for each in color.removeprefix("rgb(").removesuffix(")").split(",")) < 80


def test_pages_work_without_javascript(open_page: OpenPage, state: State, buyer: Customer) -> None:
    page = open_page(storage_state=state("ann"), java_script_enabled=False)
    page.goto("/console")
    page.get_by_role("searchbox").fill(buyer.payment)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("region", name="Verdict")).to_be_visible()
