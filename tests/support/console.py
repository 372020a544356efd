"""The console in this process: its settings, logins and requests."""

from __future__ import annotations

import hashlib
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from support.databases import Database
from webhook.events.event import EventScope
from webhook.settings import ConsoleSettings, ConsoleToken

OPERATOR_TOKEN = "token-of-ann"
VIEWER_TOKEN = "token-of-bob"
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


def bearer(text: str = OPERATOR_TOKEN) -> dict[str, str]:
    """Return the header of a script that logs in."""
    return {"Authorization": f"Bearer {text}"}
