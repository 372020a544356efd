"""Pages of a real worker in Chromium. Each test fails on a console error and on a request to another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.browser import Watch
from support.databases import Database
from support.worker import Worker, working
from tools.chromium import SECONDS, Browser, Page, launched, missing

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser of this process."""
    if reason := missing():
        pytest.skip(reason)
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def worker(chromium: Browser, shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of a module; each test creates its own users."""
    assert chromium, "without a browser, no worker starts"
    with working(shared_database.url, tmp_path_factory.mktemp("worker"), processes=1) as worker:
        yield worker


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
    """A page in a window of 1280 by 720 pixels."""
    return open_page()
