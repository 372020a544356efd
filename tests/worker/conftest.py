"""The app on a database of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.databases import Database
from support.delivery import SECRET
from webhook.app import Application, create_app
from webhook.events.event import EventScope
from webhook.settings import Settings

MakeApp = Callable[..., Application]


@pytest.fixture
def make_app(database: Database) -> Iterator[MakeApp]:
    """Builds the app with these settings, and with what else ``create_app`` takes."""
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
