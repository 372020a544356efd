"""Adds the console to the Flask application."""

from __future__ import annotations

from flask import Flask, Response

from webhook.console import entry, pages
from webhook.console.access import Access, TokenAccess
from webhook.console.console import Console
from webhook.console.headers import protect
from webhook.console.reports import Reports
from webhook.settings import ConsoleSettings

_CLOSED = "The console is closed: one of its settings is bad. The log and webhook doctor name it.\n"


def add_console(app: Flask, settings: ConsoleSettings, access: Access | None, reports: Reports) -> Console:
    """Add the console and return it. It connects to the database at the first page that needs it.

    ``access`` is by default that of the tokens in the settings.
    """
    console = Console(settings, access or TokenAccess(settings.tokens), reports)
    entry.register(console)
    pages.register(console)
    app.register_blueprint(console.blueprint)
    return console


def add_closed_console(app: Flask) -> None:
    """Answer 503 at every address of the console: one of its settings is bad."""

    def closed(**_: str) -> Response:
        return Response(_CLOSED, 503, content_type="text/plain; charset=utf-8", headers={"Retry-After": "60"})

    for rule in ("/console", "/console/", "/console/<path:_>"):
        app.add_url_rule(rule, f"closed{rule}", lambda **_: protect(closed()), methods=["GET", "POST"])
