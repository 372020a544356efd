"""A browser without JavaScript, as far as tests of the console need one: pages, their forms and links."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from support.console import OPERATOR_TOKEN, SAME_ORIGIN, bearer

_VOID = {"input", "link", "meta", "br", "line", "rect"}


@dataclass
class Form:
    """A form: its method, its address, the values that it would send, and the labels of its buttons."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


@dataclass
class Page:
    """A response as a person reads it. ``text`` is without markup, and its white space is single."""

    status: int
    path: str
    html: str
    text: str = ""
    forms: list[Form] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    """The addresses of links, by their text."""

    def form(self, button: str) -> Form:
        """Return the only form with this button."""
        [found] = [form for form in self.forms if button in form.buttons]
        return found

    def link(self, start: str) -> str:
        """Return the address of the only link whose text begins so."""
        [found] = {href for text, href in self.links.items() if text.startswith(start)}
        return found

    @property
    def buttons(self) -> list[str]:
        return [button for form in self.forms for button in form.buttons]


class Browser:
    """A person with a token. It follows redirects, and keeps cookies."""

    def __init__(self, client: FlaskClient, token: str = OPERATOR_TOKEN) -> None:
        self._client = client
        self._headers = bearer(token) | SAME_ORIGIN

    def get(self, path: str) -> Page:
        return _read(self._client.get(path, headers=self._headers, follow_redirects=True))

    def post(self, path: str, **fields: str) -> Page:
        return _read(self._client.post(path, data=fields, headers=self._headers, follow_redirects=True))

    def send(self, page: Page, button: str, **fields: str) -> Page:
        """Fill in the form with this button, and send it."""
        form = page.form(button)
        assert fields.keys() <= form.fields.keys(), (fields, form.fields)
        values = {name: value for name, value in (form.fields | fields).items() if value is not None}
        if form.method == "get":
            return _read(
                self._client.get(form.action, query_string=values, headers=self._headers, follow_redirects=True)
            )
        return self.post(form.action, **values)


def _read(response: TestResponse) -> Page:
    reader = _Reader()
    reader.feed(response.text)
    path = urlsplit(response.request.url).path
    page = Page(response.status_code, path, response.text, " ".join("".join(reader.texts).split()))
    page.forms, page.links = reader.forms, {" ".join(text.split()): href for text, href in reader.links}
    return page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.forms: list[Form] = []
        self.links: list[tuple[str, str]] = []
        self._open: list[tuple[str, dict[str, str | None], int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.forms.append(Form(values.get("method") or "get", values.get("action") or ""))
        elif tag == "input":
            self._input(values)
        elif tag == "option" and "selected" in values:
            self.forms[-1].fields[str(self._name_of("select"))] = values.get("value") or ""
        elif tag == "select":
            self.forms[-1].fields[values.get("name") or ""] = ""
        if tag not in _VOID:
            self._open.append((tag, values, len(self.texts)))
        self.texts.append(" " if tag in ("td", "th", "tr", "p", "li", "dt", "dd", "div", "h1", "h2", "option") else "")

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            name, values, start = self._open.pop()
            if name == tag:
                self._close(tag, values, "".join(self.texts[start:]))
                return

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def _input(self, values: dict[str, str | None]) -> None:
        name, kind = values.get("name"), values.get("type")
        if not name or not self.forms:
            return
        if kind in ("radio", "checkbox") and "checked" not in values:
            self.forms[-1].fields.setdefault(name, None)  # type: ignore[arg-type] # not sent
        else:
            self.forms[-1].fields[name] = values.get("value") or ""

    def _close(self, tag: str, values: dict[str, str | None], text: str) -> None:
        if tag == "a" and values.get("href"):
            self.links.append((text, str(values["href"])))
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append(values.get("aria-label") or " ".join(text.split()))
        elif tag == "textarea" and values.get("name") and self.forms:
            self.forms[-1].fields[str(values["name"])] = text

    def _name_of(self, tag: str) -> str | None:
        return next((values.get("name") for name, values, _ in reversed(self._open) if name == tag), None)
