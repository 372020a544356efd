"""The browser opens the worker's pages, and its errors do not go unnoticed."""

from __future__ import annotations

from gevent import monkey

from support.browser import Watch, violations
from support.worker import Worker
from tools.chromium import Page


def test_worker_answers_the_browser(page: Page) -> None:
    assert page.goto("/readyz").status == 200
    assert '"status":"ok"' in page.locator("body").inner_text()


def test_console_error_is_a_problem(page: Page, watch: Watch) -> None:
    page.evaluate("console.error('lost')")
    assert watch.forget() == ["console: lost"]


def test_uncaught_exception_is_a_problem(page: Page, watch: Watch) -> None:
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('lost') })")
    assert watch.forget() == ["exception: lost"]


def test_request_to_another_host_is_a_problem(page: Page, watch: Watch) -> None:
    """The request fails, because Chromium resolves no other host name."""
    page.goto("/readyz")
    with page.expect_event("requestfailed"):
        page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://cdn.example/logo.png'}))")
    assert "request to http://cdn.example/logo.png" in watch.forget()


def test_unexpected_error_status_is_a_problem(page: Page, watch: Watch, worker: Worker) -> None:
    page.goto("/no-such-page")
    assert watch.forget() == [f"404 of GET {worker.url}/no-such-page"]


def test_expected_error_status_is_no_problem(page: Page, watch: Watch) -> None:
    watch.statuses.add(404)
    page.goto("/no-such-page")


def test_missing_part_of_a_page_is_a_problem(page: Page, watch: Watch, worker: Worker) -> None:
    """Only the document itself may have an expected error status."""
    watch.statuses.add(404)
    page.goto("/readyz")
    with page.expect_event("requestfinished"):
        page.evaluate("document.body.append(Object.assign(new Image(), {src: '/logo.png'}))")
    assert watch.forget() == [f"404 of GET {worker.url}/logo.png"]


def test_grave_violation_of_an_accessibility_rule_is_found(page: Page) -> None:
    page.set_content('<main><h1 style="color: #999; background: #fff">pale</h1></main>')
    [found] = [each for each in violations(page) if each.startswith("color-contrast")]
    assert "pale" in found


def test_gevent_patches_nothing_in_the_test_process(page: Page) -> None:
    """Playwright waits in greenlets of its own, and a patched socket module would hang it."""
    assert page
    assert not monkey.is_module_patched("socket")
