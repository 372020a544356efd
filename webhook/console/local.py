"""The console as an application of its own, for one person on this machine."""

from __future__ import annotations

import structlog
from flask import Flask, Response, jsonify, redirect
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from webhook.console.access import OnceAccess
from webhook.console.blueprint import add_console
from webhook.console.console import Console
from webhook.observability.instrumentation import Delivery, location_of
from webhook.settings import ConsoleSettings

log = structlog.get_logger("webhook")


class LogReports:
    """Reports errors on standard error: without a worker there are no metrics."""

    def unavailable(self, _: Delivery, reason: str, error: Exception) -> None:
        """Report that the database or Stripe did not answer."""
        log.error("unavailable", reason=reason, cause=str(error))

    def bug(self, _: Delivery, error: Exception) -> None:
        """Report an unexpected error by its type and location."""
        log.error("unavailable", reason="bug", cause=type(error).__name__, location=location_of(error))

    def failed_login(self) -> None:
        """Report nothing: this console has no login page."""


def local_app(settings: ConsoleSettings, access: OnceAccess) -> tuple[Flask, Console]:
    """Return the application and its console."""
    app = Flask("webhook", static_folder=None)
    app.url_map.merge_slashes = False
    console = add_console(app, settings, access, LogReports())

    @app.get("/")
    @console.guarded
    def start() -> AnyResponse:
        return redirect("/console")

    @app.errorhandler(HTTPException)
    def answer(error: HTTPException) -> Response:
        response = jsonify(error=error.name)
        response.status_code = error.code or 500
        return response

    return app, console
