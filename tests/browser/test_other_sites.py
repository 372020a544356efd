"""Another web site in the browser of a person who has logged in."""

from __future__ import annotations

from uuid import uuid4

import pytest

from support.browser import Watch
from support.customer import Customer
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
def test_complete_form_of_another_site_changes_nothing(
    operator: Page, watch: Watch, worker: Worker, customer: Customer, host: str
) -> None:
    """Its fields are those of a preview, and the operator has logged in."""
    customer.sign_up()
    fields = {"id": str(uuid4()), "direction": "give", "credits": "50", "reason": "a prize"}
    before = customer.shop.contents()
    with serving(form(f"{worker.url}/console/users/{customer.user}/adjust", fields), host) as url:
        watch.hosts.add(url.split("/")[2])
        watch.statuses.add(403)
        operator.goto(url)
        expect(operator.get_by_role("alert")).to_contain_text("This form was sent from another site.")
    assert (customer.balance(), customer.actions(), customer.shop.contents()) == (0, [], before)


def test_the_same_form_from_the_console_would_be_accepted(operator: Page, customer: Customer, worker: Worker) -> None:
    """Otherwise the test above would prove nothing."""
    customer.sign_up()
    fields = {"id": str(uuid4()), "direction": "give", "credits": "50", "reason": "a prize"}
    operator.goto("/console")
    operator.set_content(form(f"{worker.url}/console/users/{customer.user}/adjust", fields).split("<script>")[0])
    operator.get_by_role("button").click()
    expect(operator.get_by_role("status")).to_contain_text("0 → 50")


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_console_is_not_shown_in_a_frame(operator: Page, watch: Watch, worker: Worker, host: str) -> None:
    with serving(f'<link rel="icon" href="data:,"><iframe src="{worker.url}/console"></iframe>', host) as url:
        watch.hosts.add(url.split("/")[2])
        operator.goto(url)
        expect(operator.frame_locator("iframe").get_by_role("searchbox")).to_have_count(0)
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
