"""The console without a mouse."""

from __future__ import annotations

from support.customer import Customer
from tools.chromium import Page, expect

MOST_STOPS = 60
FOCUSED = """() => {
    const element = document.activeElement, style = getComputedStyle(element)
    const label = element.labels?.length ? element.labels[0].innerText : element.innerText
    return [(element.getAttribute('aria-label') || label || '').trim(), style.outlineStyle !== 'none']
}"""


def tab_to(page: Page, start: str) -> None:
    """Press Tab until the element whose name begins so is focused. Each stop on the way must show its focus."""
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        name, is_visible = page.evaluate(FOCUSED)
        assert is_visible, f"the focus on {name!r} is invisible"
        if name.startswith(start):
            return
    raise AssertionError(f"Tab does not lead to {start!r}")


def test_first_stop_skips_to_the_content(operator: Page) -> None:
    operator.goto("/console/parked")
    tab_to(operator, "Skip to the content")
    operator.keyboard.press("Enter")
    expect(operator.locator("#content")).to_be_focused()


def test_customer_gets_credits_by_the_keyboard_alone(operator: Page, customer: Customer) -> None:
    """From the search to the notice."""
    customer.sign_up()
    operator.goto("/console")
    expect(operator.get_by_role("searchbox")).to_be_focused()
    operator.keyboard.type(customer.email)
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("region", name="Verdict")).to_be_visible()
    tab_to(operator, "Give or take credits")
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("heading", level=1)).to_have_text("Give or take credits")
    tab_to(operator, "Give credits")
    tab_to(operator, "Credits")
    operator.keyboard.type("50")
    tab_to(operator, "Reason")
    operator.keyboard.type("ticket 812")
    tab_to(operator, "Preview")
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("heading", level=1)).to_contain_text("Preview")
    tab_to(operator, "Give 50 credits")
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("status")).to_contain_text("0 → 50")
    assert customer.balance() == 50
