"""Who may use the console: people with a token, or one person on this machine."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from werkzeug.exceptions import Forbidden, NotFound

from webhook.console.login import OPERATOR, Login
from webhook.console.requests import Environ, bearer_token, is_https, is_local
from webhook.settings import ConsoleToken

LOGIN_SECONDS = 12 * 3600
SECONDS_OF_AN_ADDRESS = 60
"""How long the address that ``webhook console`` prints can be opened."""
_PURPOSE = "login"


class HiddenError(NotFound):
    """The console does not exist for this request: the answer is that to any unknown path."""


class Access(Protocol):
    """A way to open the console."""

    @property
    def needs_login(self) -> bool:
        """Whether people log in with a name and a token."""

    def check(self, environ: Environ) -> None:
        """Raise :class:`HTTPException` for a request that this console does not answer at all."""

    def login(self, environ: Environ, cookie: str | None) -> Login | None:
        """Return the login of a request, ``None`` if it has none."""


@dataclass(frozen=True)
class TokenAccess:
    """Access with the tokens of ``CONSOLE_TOKENS``."""

    tokens: Sequence[ConsoleToken]
    needs_login: bool = True

    def check(self, environ: Environ) -> None:
        """Raise :class:`Forbidden` for a request without HTTPS from another machine."""
        if not is_https(environ) and not is_local(environ):
            raise Forbidden("The console needs HTTPS: the proxy has to send X-Forwarded-Proto: https.")

    def login(self, environ: Environ, cookie: str | None) -> Login | None:
        """Return the login of a bearer token, else of the cookie."""
        token = bearer_token(environ)
        if token is not None:
            return self.with_token(token)
        found = (login for login in map(_login, self.tokens) if _is_signed(login, cookie))
        return next(found, None)

    def with_token(self, token: str, name: str | None = None) -> Login | None:
        """Return the login of a token, with the name if one is given. Every entry is compared, in constant time."""
        digest = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        found = [each for each in self.tokens if _is_equal(each.digest, digest) & (name in (None, each.name))]
        return _login(found[0]) if found else None


@dataclass(frozen=True)
class LocalAccess:
    """Access without a token for one person on this machine: see ``webhook.dev.app``."""

    name: str
    port: int
    needs_login: bool = False
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def check(self, environ: Environ) -> None:
        """Raise :class:`HiddenError` unless a program on this machine sent the request itself."""
        if not is_local(environ, self.port):
            raise HiddenError

    def login(self, environ: Environ, cookie: str | None) -> Login | None:  # noqa: ARG002
        """Return the login of everyone who comes this far."""
        return Login(self.name, OPERATOR, self.key)


@dataclass
class OnceAccess:
    """Access with one single-use address for one person on this machine, then with its cookie."""

    name: str
    port: int
    needs_login: bool = False
    secret: str | None = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """The secret in the address; ``None`` once it is used."""
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    _end: float = field(default_factory=lambda: monotonic() + SECONDS_OF_AN_ADDRESS)

    def check(self, environ: Environ) -> None:
        """Raise :class:`HiddenError` unless a program on this machine sent the request itself."""
        if not is_local(environ, self.port):
            raise HiddenError

    def login(self, environ: Environ, cookie: str | None) -> Login | None:  # noqa: ARG002
        """Return the login of the cookie."""
        login = Login(self.name, OPERATOR, self.key)
        return login if _is_signed(login, cookie) else None

    def redeem(self, sent: str) -> Login | None:
        """Return the login for the secret of the address. It works once, within :data:`SECONDS_OF_AN_ADDRESS`."""
        secret, is_late = self.secret, monotonic() > self._end
        if secret is None or is_late or not _is_equal(sent, secret):
            return None
        self.secret = None
        return Login(self.name, OPERATOR, self.key)


def cookie_of(login: Login) -> str:
    """Return the value of the cookie that logs in."""
    return login.sign(_PURPOSE, login.name)


def _is_signed(login: Login, cookie: str | None) -> bool:
    return bool(cookie) and login.read(_PURPOSE, str(cookie), max_age=LOGIN_SECONDS) == login.name


def _login(token: ConsoleToken) -> Login:
    return Login(token.name, token.role, token.digest)


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
