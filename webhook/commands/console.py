"""``webhook console``: the console for one operator on this machine, and new tokens for the others."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from typing import Any

import click
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from webhook.commands.operator import set_up_log
from webhook.console.access import SECONDS_OF_AN_ADDRESS, OnceAccess
from webhook.console.local import local_app
from webhook.console.login import OPERATOR, VIEWER
from webhook.errors import ExpectedError
from webhook.ledger.errors import NotOperatorError
from webhook.ledger.operator import OperatorLedger
from webhook.settings import read_console_settings

_ADDRESS = "127.0.0.1"
_NAME = re.compile(r"[a-z0-9._-]{1,32}")
_TOKEN_BYTES = 32

_READY = """
  Console         {url}
                  Open it within {seconds} seconds, once. Do not share it.
  Acts as         {by}
  Changes         {changes}
  Stop            Ctrl-C
"""


class TokenNameError(ExpectedError):
    """The name of a token is not accepted."""


class _QuietHandler(WSGIRequestHandler):
    """Logs no request: a line would show the query string, and the secret of the address."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Write nothing. Errors of the application are reported by the console."""


def serve(by: str) -> None:
    """Serve the console on a free port of 127.0.0.1 until Ctrl-C, and print its single-use address.

    Raises :class:`SettingsError`, or :class:`LedgerUnavailableError` if the database does not answer at the start.
    """
    set_up_log()
    with socket.create_server((_ADDRESS, 0)) as listener:
        server, access, changes = _server(by, listener)
        url = f"http://{_ADDRESS}:{access.port}/console/open?key={access.secret}"
        click.echo(_READY.format(url=url, seconds=SECONDS_OF_AN_ADDRESS, by=by, changes=changes).rstrip())
        server.serve_forever()  # until Ctrl-C
        click.echo("Stopped.")


def _server(by: str, listener: socket.socket) -> tuple[BaseWSGIServer, OnceAccess, str]:
    """Return the server, its access, and whether changes work."""
    settings = read_console_settings({**os.environ, "CONSOLE_TOKENS": ""})  # it uses none
    access = OnceAccess(by, listener.getsockname()[1])
    app, console = local_app(settings, access)
    console.worker_ledger.current_schema_version()
    changes = _changes(console.operators)
    handler = _QuietHandler
    server = make_server(_ADDRESS, access.port, app, threaded=True, request_handler=handler, fd=listener.fileno())
    return server, access, changes


def _changes(operators: OperatorLedger) -> str:
    try:
        return f"recorded with the database login {operators.login()}"
    except NotOperatorError as error:
        return f"none, view only: {error}"


def make_token(name: str, *, operator: bool) -> None:
    """Print a new random token and its entry; raises :class:`TokenNameError`."""
    if not _NAME.fullmatch(name):
        raise TokenNameError("a name has 1 to 32 characters of a-z, 0-9, '.', '_' and '-'")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    click.echo(f"token    {token}")
    click.echo(f"entry    {name}:{OPERATOR if operator else VIEWER}:{digest}")


def is_root() -> bool:
    """Return whether root runs this, so that the system user names no person."""
    return os.geteuid() == 0
