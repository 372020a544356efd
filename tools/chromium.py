"""Chromium, which Playwright drives: https://playwright.dev/python/docs/api/class-browsertype.

The tests in a browser and `make screenshots` use it. Both packages are optional: see :func:`missing`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Response, expect, sync_playwright
except ModuleNotFoundError:
    Browser = ConsoleMessage = Locator = Page = Request = Response = expect = sync_playwright = None

AXE = Path(__file__).parent / "browser" / "node_modules" / "axe-core" / "axe.min.js"
SECONDS = 10
"""The timeout of each action and each expectation."""

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ARGUMENTS = (
    # Docker's /dev/shm has 64 MB, which is too little for Chromium.
    "--disable-dev-shm-usage",
    # Only this machine is reachable, and not through a proxy.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    # Chromium refuses some ports that a test may get.
    "--explicitly-allowed-ports=10080",
)


def missing() -> str | None:
    """Return what is not installed and the command that installs it, ``None`` if all is there."""
    if sync_playwright is None or not AXE.exists():
        return "Playwright and axe-core are not installed: make tools"
    return None if _CHROMIUM else "Chromium is not installed: apt-get install chromium"


@contextmanager
def launched() -> Iterator[Browser]:
    """Run Chromium. Playwright passes --no-sandbox: root needs it, and the pages are the project's own."""
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_ARGUMENTS])
        yield browser
        browser.close()
