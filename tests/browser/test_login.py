"""Login and logout in the browser."""

from __future__ import annotations

import re

from support.browser import TOKENS, Watch, fill_in, log_in
from tools.chromium import Page, expect


def test_login_leads_to_the_page_that_was_asked_for(page: Page) -> None:
    page.goto("/console?q=pi_1")
    fill_in(page)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/console\?q=pi_1$"))


def test_login_with_a_wrong_token_is_refused(page: Page, watch: Watch) -> None:
    watch.statuses.add(401)
    log_in(page, "ann", "a wrong token")
    expect(page.get_by_role("alert")).to_have_text("This name and token do not match.")
    expect(page.get_by_label("Name")).to_be_focused()


def test_login_shows_name_and_role(operator: Page, viewer: Page) -> None:
    for page, shown in ((operator, "ann operator"), (viewer, "bob viewer")):
        page.goto("/console")
        expect(page.get_by_role("banner")).to_contain_text(shown)


def test_logout_ends_the_login(page: Page) -> None:
    log_in(page)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.goto("/console")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")


def test_back_button_after_the_logout_shows_no_page(page: Page) -> None:
    """Cache-Control: no-store keeps pages out of the browser's history cache."""
    log_in(page)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")


def test_scripts_cannot_read_the_login(operator: Page) -> None:
    operator.goto("/console")
    assert operator.evaluate("document.cookie") == ""


def test_login_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/console/login")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(TOKENS["ann"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("searchbox")).to_be_visible()
