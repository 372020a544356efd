"""The application of ``webhook dev``: the worker, with the console at ``/``.

``webhook dev`` names one of the two functions on gunicorn's command line. No environment variable can choose them, so
a copied ``.env`` cannot open the console of a real server without a token.
"""

from __future__ import annotations

import os
from dataclasses import replace
from urllib.parse import urlsplit

from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from webhook.app import Application, create_app, tracer_of
from webhook.commands.operator import system_user
from webhook.console.access import LocalAccess
from webhook.dev.errors import DevError
from webhook.dev.postgres import ADMIN
from webhook.dev.state import DIRECTORY
from webhook.settings import Settings, is_set, read_console_settings, read_server_settings, read_settings


def with_given_database() -> Application:
    """Return the worker on ``DATABASE_URL``: its console needs ``CONSOLE_TOKENS``, as everywhere."""
    return _create(read_settings())


def with_own_database() -> Application:
    """Return the worker on the embedded database: its console is open to a person on this machine.

    ``CONSOLE_TOKENS`` makes it need a token here, too. Raises :class:`DevError` for another database.
    """
    settings = read_settings()
    _require_own_database(settings.database_url)
    if is_set("CONSOLE_TOKENS"):
        return _create(settings)
    # A variable for operators may name a real database.
    environ = {**os.environ, "OPERATOR_DATABASE_URL": settings.database_url}
    access = LocalAccess(system_user(), read_server_settings().port)
    return _create(replace(settings, console=read_console_settings(environ)), access)


def _create(settings: Settings, access: LocalAccess | None = None) -> Application:
    app = create_app(settings, tracer_of(settings), access)

    def start() -> Response:
        return redirect("/console")

    if app.console:
        app.add_url_rule("/", "start", app.console.guarded(start), methods=["GET"])
    return app


def _require_own_database(url: str) -> None:
    """Raise :class:`DevError` unless the URL is that of the server whose files are below this directory."""
    parts = urlsplit(url)
    password = (DIRECTORY / "database_password").read_text(encoding="utf-8")
    if (parts.hostname, parts.username, parts.password) != ("127.0.0.1", ADMIN, password):
        raise DevError("DATABASE_URL is not the embedded database of webhook dev")
