"""The app on a separate database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from support import delivery
from support.console import VIEWER_TOKEN, TestPages, console_settings, log_in
from support.databases import Database
from support.delivery import OLDER_SECRET, SECRET, Post
from webhook.app import Application, create_app
from webhook.events.event import EventScope
from webhook.settings import Settings

MakeApp = Callable[..., Application]


@pytest.fixture
def make_app(database: Database) -> Iterator[MakeApp]:
    """Build the app with these settings and further arguments of ``create_app``."""
    with ExitStack() as built:

        def make_app(*arguments: Any, secrets: tuple[str, ...] = (SECRET,), **settings: Any) -> Application:
            app = create_app(Settings(database.url, secrets, EventScope(livemode=False), **settings), *arguments)
            built.callback(app.close)
            return app

        yield make_app


@pytest.fixture
def app(make_app: MakeApp, buyer: str) -> Application:
    """The app without an API key; the buyer of the recorded events has an account."""
    assert buyer
    return make_app()


@pytest.fixture
def test_pages(monkeypatch: pytest.MonkeyPatch) -> TestPages:
    """The pages of the console in these tests, instead of its own."""
    pages = TestPages()
    monkeypatch.setattr("webhook.console.pages.register", pages.register)
    return pages


@pytest.fixture
def make_console(make_app: MakeApp, database: Database, test_pages: TestPages) -> Callable[..., FlaskClient]:
    """Build an app with a console of these settings, and return a client of it."""
    assert test_pages

    def make_console(*arguments: Any, **settings: Any) -> FlaskClient:
        return make_app(*arguments, console=console_settings(database, **settings)).test_client()

    return make_console


@pytest.fixture
def console(make_console: Callable[..., FlaskClient]) -> FlaskClient:
    """A client of a console with the operator Ann and the viewer Bob; it has not logged in."""
    return make_console()


@pytest.fixture
def ann(console: FlaskClient) -> FlaskClient:
    """The client after Ann's login."""
    assert log_in(console).status_code == 303
    return console


@pytest.fixture
def bob(console: FlaskClient) -> FlaskClient:
    """The client after Bob's login."""
    assert log_in(console, "bob", VIEWER_TOKEN).status_code == 303
    return console


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    """A client of the app with two webhook secrets."""
    return make_app(secrets=(SECRET, OLDER_SECRET)).test_client()


@pytest.fixture
def post(client: FlaskClient, buyer: str) -> Post:
    """Deliver an event (or the bytes of a body), signed now unless a header is given; the buyer has an account."""
    assert buyer
    return partial(delivery.post, client)
