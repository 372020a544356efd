"""What a test reads from a page: its problems, and the violations of accessibility rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from support.console import OPERATOR_TOKEN, VIEWER_TOKEN
from support.customer import Customer
from tools.chromium import AXE, ConsoleMessage, Page, Request, Response

TOKENS = {"ann": OPERATOR_TOKEN, "bob": VIEWER_TOKEN}
_GRAVE = ("serious", "critical")


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

    def forget(self) -> list[str]:
        """Return the problems so far, and forget them."""
        problems, self.problems = self.problems, []
        return problems

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


def violations(page: Page) -> list[str]:
    """Return the serious and critical violations that axe-core finds: https://github.com/dequelabs/axe-core."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [f"{each['id']}: {node['html']}" for each in found if each["impact"] in _GRAVE for node in each["nodes"]]


def click_twice(page: Page, button: str, customer: Customer) -> None:
    """Click again while the server still works on the first click, so that it gets the form twice."""
    element = page.get_by_role("button", name=button)
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    with customer.busy() as wait_for:
        for clicks in (1, 2):
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            wait_for(clicks)


def log_in(page: Page, name: str = "ann", token: str | None = None) -> None:
    """Send the form of the login with a token, by default the person's own."""
    page.goto("/console/login")
    fill_in(page, name, token)
    page.get_by_role("button", name="Log in").click()


def fill_in(page: Page, name: str = "ann", token: str | None = None) -> None:
    """Fill in the form of the login."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Token").fill(token or TOKENS[name])
