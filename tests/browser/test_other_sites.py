"""Another web site in the browser of a person who has logged in."""

from __future__ import annotations

import pytest

from support.browser import Watch
from support.other_site import HOSTS, form, serving
from support.worker import Worker
from tools.chromium import Page, expect


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_form_of_another_site_cannot_log_out(operator: Page, watch: Watch, worker: Worker, host: str) -> None:
    with serving(form(f"{worker.url}/console/logout", {}), host) as url:
        watch.hosts.add(url.split("/")[2])
        watch.statuses.add(403)
        operator.goto(url)
        expect(operator.get_by_role("alert")).to_contain_text("This form was sent from another site.")
    operator.goto("/console")
    expect(operator.get_by_role("button", name="Log out")).to_be_visible()


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_console_is_not_shown_in_a_frame(operator: Page, watch: Watch, worker: Worker, host: str) -> None:
    with serving(f'<link rel="icon" href="data:,"><iframe src="{worker.url}/console"></iframe>', host) as url:
        watch.hosts.add(url.split("/")[2])
        operator.goto(url)
        frame = operator.frame_locator("iframe")
        expect(frame.get_by_role("searchbox")).to_have_count(0)
    assert watch.forget(), "the browser reports that it shows no frame"


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_script_of_another_site_reads_no_page(operator: Page, watch: Watch, worker: Worker, host: str) -> None:
    with serving('<link rel="icon" href="data:,">', host) as url:
        watch.hosts.add(url.split("/")[2])
        operator.goto(url)
        read = f"fetch('{worker.url}/console', {{credentials: 'include'}}).then(() => 'read', error => error.name)"
        assert operator.evaluate(read) == "TypeError"
    assert watch.forget()


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_link_of_another_site_opens_the_page(operator: Page, watch: Watch, worker: Worker, host: str) -> None:
    """A link in a colleague's chat works."""
    with serving(f'<link rel="icon" href="data:,"><a href="{worker.url}/console">Look</a>', host) as url:
        watch.hosts.add(url.split("/")[2])
        operator.goto(url)
        operator.get_by_role("link").click()
        expect(operator.get_by_role("searchbox")).to_be_visible()
