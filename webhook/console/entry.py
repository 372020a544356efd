"""Login and logout, the style sheet, and the answer to unknown addresses."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import Response, make_response, redirect, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from webhook.console import cookies
from webhook.console.access import LOGIN_SECONDS, OnceAccess, TokenAccess, cookie_of
from webhook.console.console import Console
from webhook.console.login import Login
from webhook.console.rendering import style_sheet

_ALL = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_YEAR = 365 * 24 * 3600
_START = "/console"


def register(console: Console) -> None:
    """Add what every console has, whatever its access."""

    @console.open_route("/console/style.css", ["GET"])
    def style() -> Response:
        response = make_response(style_sheet()[0])
        response.headers["Content-Type"] = "text/css; charset=utf-8"
        response.headers["Cache-Control"] = f"private, max-age={_YEAR}, immutable"
        return response

    @console.open_route("/console/", ["GET"])
    def without_slash() -> AnyResponse:
        return redirect(_START, 303)

    @console.open_route("/console/logout", ["POST"])
    def logout() -> AnyResponse:
        response = redirect(url_for("console.login") if console.access.needs_login else _START, 303)
        cookies.delete(response, request.environ, cookies.LOGIN)
        return response

    console.unknown(_ALL)

    match console.access:
        case TokenAccess():
            _register_login(console, console.access)
        case OnceAccess():
            _register_address(console, console.access)


def _register_login(console: Console, access: TokenAccess) -> None:
    @console.open_route("/console/login", ["GET"])
    def login() -> AnyResponse:
        if console.current_login():
            return redirect(_START, 303)
        return console.page("login.html", next=request.args.get("next", ""), has_failed=False)

    @console.open_route("/console/login", ["POST"])
    def log_in() -> AnyResponse:
        form = request.form
        found = access.with_token(form.get("token", ""), form.get("name", ""))
        if found is None:
            console.reports.failed_login()
            return console.page("login.html", status=401, next=form.get("next", ""), has_failed=True)
        return _logged_in(found, local_path(form.get("next", "")) or _START)


def _register_address(console: Console, access: OnceAccess) -> None:
    @console.open_route("/console/open", ["GET"])
    def open_once() -> AnyResponse:
        found = access.redeem(request.args.get("key", ""))
        if found is None:
            raise NotFound("This address was used, or it is older than a minute: start webhook console again.")
        return _logged_in(found, _START)


def _logged_in(login: Login, path: str) -> AnyResponse:
    response = redirect(path, 303)
    cookies.write(response, request.environ, cookies.LOGIN, cookie_of(login), max_age=LOGIN_SECONDS)
    return response


def local_path(path: str) -> str | None:
    """Return the path if it is one of the console's, else ``None``: a link must not lead to another site."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return None
    is_ours = re.fullmatch(r"/console(/[!-~]*)?(\?[!-~]*)?", path) and "\\" not in path
    return path if is_ours and not parts.scheme and not parts.netloc else None
