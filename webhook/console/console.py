"""The console as its pages use it: rules of a request, connections, templates and redirects."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Response, g, make_response, redirect, request, url_for
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, Forbidden, NotFound, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from webhook.console import cookies
from webhook.console.access import Access, HiddenError
from webhook.console.authority import Authority
from webhook.console.failures import failure_of
from webhook.console.headers import protect
from webhook.console.limits import ACTION_SECONDS, LARGEST_FORM, PAGE_SECONDS, Deadline, Slots
from webhook.console.login import OPERATOR, VIEWER, Login
from webhook.console.reading import CONNECTIONS, PageLedger, PageStripe, limited
from webhook.console.rendering import Templates, style_sheet
from webhook.console.reports import Reports
from webhook.console.requests import is_change_from_here, is_page_view
from webhook.ledger.ledger import Ledger
from webhook.ledger.operator import Operator, OperatorLedger
from webhook.observability.instrumentation import Delivery
from webhook.settings import ConsoleSettings
from webhook.stripe_api.client import stripe_api

CHANNEL = "console"
NAVIGATION = (("Search", "/console"), ("Parked events", "/console/parked"))
_NOTICE_SECONDS = 60
_MOST_NOTICE = 500
"""Characters. Browsers drop a cookie of more than 4,096 bytes, and proxies reject the whole answer."""
_HEADERS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}
"""Headers of errors, by their status."""

Page = TypeVar("Page", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Needs:
    """What a route needs: a login of this role, and for a change the permission to act."""

    role: str | None = VIEWER
    """``None`` if it needs no login."""
    may_act: bool = False


class Console:
    """What a page module gets. Each of its routes keeps the rules of docs/reference/contract.md."""

    def __init__(self, settings: ConsoleSettings, access: Access, reports: Reports) -> None:
        self.settings = settings
        self.access = access
        self.reports = reports
        self.blueprint = Blueprint("console", __name__)
        self.max_credits = settings.max_credits
        """The most credits that one action may give or take."""
        self.ledger = PageLedger(settings.database_url, _deadline)
        """Reads in a read-only transaction."""
        self.worker_ledger = Ledger(settings.operator_database_url, connections=CONNECTIONS)
        """Records and settles what an action needs, as the worker does."""
        self.operators = OperatorLedger(settings.operator_database_url, connections=CONNECTIONS)
        """Acts as ``billing_operator``."""
        self.stripe = PageStripe(settings.stripe, _deadline) if settings.stripe else None
        """Searches at Stripe; ``None`` without a key."""
        self.stripe_api = stripe_api(settings.stripe)
        """Reads single objects at Stripe for a retry; ``None`` without a key."""
        self.page_key = page_key(settings)
        """Signs addresses of pages, for every login alike."""
        self._authority = Authority(self.operators)
        self._slots = Slots()
        self._templates = Templates(
            livemode=settings.scope.livemode, url_for=url_for, style_version=style_sheet()[1], navigation=NAVIGATION
        )

    @property
    def me(self) -> Login:
        """The login of the request."""
        login: Login = g.console_login
        return login

    def operator(self, reason: str) -> Operator:
        """Return the person of the request as the operator of an action."""
        return Operator(self.me.name, reason, CHANNEL)

    def view(self, rule: str, *, role: str = VIEWER, endpoint: str | None = None) -> Callable[[Page], Page]:
        """Decorate the function of a page. ``rule`` is the whole path, such as ``/console/users/<uuid:user_id>``.

        The endpoint is the name of the function. Payloads need the role ``operator``.
        """
        return self._route(rule, ["GET"], _Needs(role), endpoint)

    def action(self, rule: str, *, endpoint: str | None = None) -> Callable[[Page], Page]:
        """Decorate the function of a change: a POST of an operator who may act, from a page of this console."""
        return self._route(rule, ["POST"], _Needs(OPERATOR, may_act=True), endpoint)

    def open_route(self, rule: str, methods: Sequence[str], *, endpoint: str | None = None) -> Callable[[Page], Page]:
        """Decorate the function of a page that needs no login. The rules on the origin of a request hold."""
        return self._route(rule, methods, _Needs(role=None), endpoint)

    def unknown(self, methods: Sequence[str]) -> None:
        """Answer every other address below ``/console`` with 404, after the login."""

        def not_found(**_: str) -> AnyResponse:
            raise NotFound("This address does not exist.")

        self._route("/console/<path:_>", methods, _Needs(), None)(not_found)

    def guarded(self, function: Callable[[], AnyResponse]) -> Callable[[], AnyResponse]:
        """Return the function of a page outside ``/console``, which answers as the console does."""

        def answer() -> AnyResponse:
            return self._answer(function, _Needs(role=None))

        return answer

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page. Its template sees ``me``, ``notice`` and ``path`` besides the values."""
        notice = self._notice()
        shown = {"me": g.get("console_login"), "has_logout": self.access.needs_login, "path": request.path}
        html = self._templates.render(template, notice=notice, **shown, **values)
        response = make_response(html, status)
        if notice is not None:
            cookies.delete(response, request.environ, cookies.NOTICE)
        return response

    def see_other(self, endpoint: str, *, notice: str | None = None, **values: Any) -> Response:
        """Return a redirect to a page after a change. The page shows the notice once."""
        response = make_response(redirect(url_for(f"console.{endpoint}", **values), 303))
        if notice is not None:
            signed = self.me.sign(cookies.NOTICE, notice[:_MOST_NOTICE])
            cookies.write(response, request.environ, cookies.NOTICE, signed, max_age=_NOTICE_SECONDS)
        return response

    def current_login(self) -> Login | None:
        """Return the login of the request, without the database's word on changes; ``None`` if it has none."""
        return self.access.login(request.environ, cookies.read(request, cookies.LOGIN))

    def close(self) -> None:
        """Close the idle connections."""
        for each in (self.ledger, self.worker_ledger, self.operators):
            each.close()

    def _route(self, rule: str, methods: Sequence[str], needs: _Needs, endpoint: str | None) -> Callable[[Page], Page]:
        def add(function: Page) -> Page:
            def answer(**values: Any) -> AnyResponse:
                return self._answer(partial(function, **values), needs)

            name = endpoint or function.__name__
            self.blueprint.add_url_rule(rule, name, answer, methods=methods, provide_automatic_options=False)
            return function

        return add

    def _answer(self, page: Callable[[], AnyResponse], needs: _Needs) -> AnyResponse:
        try:
            self.access.check(request.environ)
            response = self._admit(page, needs)
        except HiddenError:
            raise
        except Exception as error:  # noqa: BLE001 - a page for each error
            response = self._failed(error)
        return protect(response)

    def _admit(self, page: Callable[[], AnyResponse], needs: _Needs) -> AnyResponse:
        """Check the request, cheapest rule first. Nothing is read from the database before the login."""
        _check_origin()
        if needs.role is None:
            _read_form()
            return page()
        login = self.current_login()
        if login is None:
            return self._without_login()
        g.console_login = login
        if needs.role == OPERATOR and login.role != OPERATOR:
            raise Forbidden("Your login may only view.")
        _read_form()
        with self._slots.one():
            g.console_deadline = Deadline(ACTION_SECONDS if needs.may_act else PAGE_SECONDS)
            # A change is not interrupted: its page has to report whether it was made.
            with nullcontext() if needs.may_act else limited(g.console_deadline):
                return self._perform(page, login, needs)

    def _perform(self, page: Callable[[], AnyResponse], login: Login, needs: _Needs) -> AnyResponse:
        g.console_login = replace(login, may_act=login.role == OPERATOR and self._authority.may_act())
        if needs.may_act and not self.me.may_act:
            raise Forbidden("The console is view-only: its database login is not a member of billing_operator.")
        return page()

    def _without_login(self) -> AnyResponse:
        if request.method not in ("GET", "HEAD") or "Authorization" in request.headers or not self.access.needs_login:
            raise Unauthorized("Log in first.")
        return redirect(url_for("console.login", next=request.full_path.removesuffix("?")), 303)

    def _failed(self, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.is_outage:
            self.reports.unavailable(Delivery(), "console", error)
        elif failure.is_bug:
            self.reports.bug(Delivery(), error)
        response = self.page("error.html", failure=failure, status=failure.status)
        response.headers.extend(_HEADERS.get(failure.status, {}))
        return response

    def _notice(self) -> str | None:
        login, signed = g.get("console_login"), cookies.read(request, cookies.NOTICE)
        if login is None or signed is None:
            return None
        notice = login.read(cookies.NOTICE, signed, max_age=_NOTICE_SECONDS)
        return notice if isinstance(notice, str) else None


def page_key(settings: ConsoleSettings) -> str:
    """Return a secret that all processes and logins share: the hash of all tokens, random without tokens."""
    digests = ",".join(sorted(token.digest for token in settings.tokens))
    return hashlib.sha256(digests.encode()).hexdigest() if digests else secrets.token_hex(32)


def _check_origin() -> None:
    if request.method in ("GET", "HEAD"):
        if not is_page_view(request.environ):
            raise Forbidden("Another site asked for this page: open it from the console.")
    elif not is_change_from_here(request.environ):
        raise Forbidden("This form was sent from another site. Nothing was changed.")


def _read_form() -> None:
    """Read the whole body, before it takes one of the few slots."""
    request.max_content_length = LARGEST_FORM
    try:
        request.form  # noqa: B018 - the property reads the body
    except (ParseException, OSError):  # malformed chunks, or a broken connection
        raise BadRequest("The form did not arrive.") from None


def _deadline() -> Deadline:
    deadline: Deadline = g.console_deadline
    return deadline
