"""The app on a separate database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from support import delivery
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
def client(make_app: MakeApp) -> FlaskClient:
    """A client of the app with two webhook secrets."""
    return make_app(secrets=(SECRET, OLDER_SECRET)).test_client()


@pytest.fixture
def post(client: FlaskClient, buyer: str) -> Post:
    """Deliver an event (or the bytes of a body), signed now unless a header is given; the buyer has an account."""
    assert buyer
    return partial(delivery.post, client)
