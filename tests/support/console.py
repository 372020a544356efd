"""The console in this process: its settings, logins and requests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Event
from typing import Any

from flask import Response, jsonify, make_response, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from support.databases import Database
from webhook.console.console import Console
from webhook.console.failures import Failure
from webhook.events.event import EventScope
from webhook.settings import ConsoleSettings, ConsoleToken

OPERATOR_TOKEN = "token-of-ann"
VIEWER_TOKEN = "token-of-bob"
SECRET_TEXT = "a value that no page and no log may show"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def token(name: str, role: str, text: str) -> ConsoleToken:
    """Return the entry of CONSOLE_TOKENS for a token."""
    return ConsoleToken(name, role, hashlib.sha256(text.encode()).hexdigest())


ANN = token("ann", "operator", OPERATOR_TOKEN)
BOB = token("bob", "viewer", VIEWER_TOKEN)


def console_settings(database: Database, **changes: Any) -> ConsoleSettings:
    """Return the settings of a console whose operators may act. Ann is an operator, Bob a viewer."""
    settings = {"database_url": database.url, "operator_database_url": database.operator_url}
    scope = {"scope": EventScope(livemode=False), "tokens": (ANN, BOB)}
    return ConsoleSettings(**{**settings, **scope, **changes})


def log_in(client: FlaskClient, name: str = "ann", text: str = OPERATOR_TOKEN, **options: Any) -> TestResponse:
    """Send the login form."""
    form = {"name": name, "token": text}
    return client.post("/console/login", data=form, **{"headers": SAME_ORIGIN, **options})


def change(client: FlaskClient, reason: str = "a reason", **headers: str) -> TestResponse:
    """Send the form of the test's change, by default from a page of this console."""
    return client.post("/console/test/change", data={"reason": reason}, headers=headers or SAME_ORIGIN)


def bearer(text: str = OPERATOR_TOKEN) -> dict[str, str]:
    """Return the header of a script that logs in."""
    return {"Authorization": f"Bearer {text}"}


@dataclass
class TestPages:
    """Pages that a test adds to the console, and what they did."""

    __test__ = False
    changes: list[str] = field(default_factory=list)
    entered: SimpleQueue[None] = field(default_factory=SimpleQueue)
    may_leave: Event = field(default_factory=Event)

    def register(self, console: Console) -> None:
        """Add the pages."""

        @console.view("/console")
        def home() -> Response:
            return make_response("home")

        @console.view("/console/test/view")
        def view() -> Response:
            text = request.args.get("text", "")
            return console.page("error.html", failure=Failure(200, f"Seen: {text}", text))

        @console.view("/console/test/payload", role="operator")
        def payload() -> Response:
            return make_response("payload")

        @console.view("/console/test/busy")
        def busy() -> Response:
            self.entered.put(None)
            assert self.may_leave.wait(30)
            return make_response("done")

        @console.view("/console/test/reads/<name>")
        def reads(name: str) -> Response:
            now = datetime.now(UTC)
            return jsonify(len(console.ledger.rows(name, since=now, until=now)))

        @console.view("/console/test/raises")
        def raises() -> Response:
            raise ZeroDivisionError(SECRET_TEXT)

        @console.action("/console/test/change")
        def change() -> Response:
            self.changes.append(f"{request.form['reason']} by {console.operator('test').by}")
            return console.see_other("view", notice=request.form["reason"])
