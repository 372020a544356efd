"""The console of a real worker in Chromium. Each test fails on a console error and on a request to another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.browser import Watch, log_in
from support.console import ANN, BOB
from support.customer import Customer, new_customer
from support.databases import Database, Server
from support.shop import Shop, opened
from support.stripe_stand_in import StripeStandIn, serving
from support.worker import Worker, working
from tools.chromium import SECONDS, Browser, Page, launched, missing

OpenPage = Callable[..., Page]
State = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser of this process."""
    if reason := missing():
        pytest.skip(reason)
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def stripe(chromium: Browser) -> Iterator[StripeStandIn]:
    """Stripe's API, with an account without objects."""
    assert chromium, "without a browser, nothing else starts"
    with serving(StripeStandIn()) as stripe:
        yield stripe


@pytest.fixture(scope="session")
def books(stripe: StripeStandIn, server: Server, template: str) -> Iterator[Database]:
    """The database of all browser tests of this process; each test creates its own users."""
    assert stripe
    with server.new_database(template) as database:
        yield database


@pytest.fixture(scope="session")
def worker(stripe: StripeStandIn, books: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The worker of this process. Its console has the operator Ann and the viewer Bob."""
    variables = {
        "CONSOLE_TOKENS": ",".join(f"{each.name}:{each.role}:{each.digest}" for each in (ANN, BOB)),
        "OPERATOR_DATABASE_URL": books.operator_url,
        **stripe.settings(books.url),
    }
    with working(variables.pop("DATABASE_URL"), tmp_path_factory.mktemp("worker"), processes=1, **variables) as worker:
        yield worker


@pytest.fixture(scope="session")
def shop(stripe: StripeStandIn, books: Database) -> Iterator[Shop]:
    """The shop, whose users and payments each test creates."""
    with opened(books, stripe) as shop:
        yield shop


@pytest.fixture
def customer(shop: Shop) -> Customer:
    """A person without an account and without a payment."""
    return new_customer(shop)


@pytest.fixture(scope="session")
def state(chromium: Browser, worker: Worker) -> State:
    """Return the cookies of a person who has logged in with the form."""

    @cache
    def state(name: str) -> dict[str, Any]:
        with chromium.new_context(base_url=worker.url) as context:
            log_in(context.new_page(), name)
            return context.storage_state()

    return state


@pytest.fixture
def watch(worker: Worker) -> Iterator[Watch]:
    """What went wrong in the pages of this test. Nothing may be left at its end."""
    watch = Watch({urlsplit(worker.url).netloc})
    yield watch
    assert watch.problems == []


@pytest.fixture
def open_page(chromium: Browser, worker: Worker, watch: Watch) -> Iterator[OpenPage]:
    """Open a page with cookies of its own; the options are those of Playwright's ``new_context``."""
    with ExitStack() as opened:

        def open_page(**options: Any) -> Page:
            context = chromium.new_context(base_url=worker.url, timezone_id="UTC", locale="en-GB", **options)
            opened.callback(context.close)
            context.set_default_timeout(SECONDS * 1000)
            context.on("page", watch.observe)
            return context.new_page()

        yield open_page


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page of a person who has not logged in."""
    return open_page()


@pytest.fixture
def operator(open_page: OpenPage, state: State) -> Page:
    """A page of Ann, who may change things."""
    return open_page(storage_state=state("ann"))


@pytest.fixture
def viewer(open_page: OpenPage, state: State) -> Page:
    """A page of Bob, who may only look."""
    return open_page(storage_state=state("bob"))
