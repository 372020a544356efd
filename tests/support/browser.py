"""Chromium, which Playwright drives: https://playwright.dev/python/docs/api/class-browsertype."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

try:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright
except ModuleNotFoundError:
    Browser = ConsoleMessage = Page = Request = Response = expect = sync_playwright = None

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 10
"""The timeout of each action and each expectation."""

ARGUMENTS = (
    # Docker's /dev/shm has 64 MB, which is too little for Chromium.
    "--disable-dev-shm-usage",
    # Only this machine is reachable, and not through a proxy.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    # Chromium refuses some ports that a test may get.
    "--explicitly-allowed-ports=10080",
)


def missing() -> str | None:
    """Return what the browser tests lack and the command that installs it."""
    if sync_playwright is None:
        return "Playwright is not installed: make tools"
    return None if CHROMIUM else "Chromium is not installed: apt-get install chromium"


@contextmanager
def launched() -> Iterator[Browser]:
    """Run Chromium. Playwright passes --no-sandbox: root needs it, and the pages are the project's own."""
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong in pages: console errors, failed requests and requests to other hosts.

    ``hosts`` are the hosts with ports that a page may use. ``statuses`` are the error statuses that a test expects
    of a document; Chromium reports each as a console error.
    """

    hosts: set[str]
    statuses: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def observe(self, page: Page) -> None:
        page.on("console", self._message)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):  # see _response
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.netloc not in self.hosts and url.scheme != "data":
            self.problems.append(f"request to {request.url}")

    def _response(self, response: Response) -> None:
        expected = self.statuses if response.request.is_navigation_request() else ()
        if response.status >= 400 and response.status not in expected:
            self.problems.append(f"{response.status} of {response.request.method} {response.url}")
