"""The error of a request to Stripe that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from webhook.errors import ExpectedError

_SECONDS = re.compile(r"[0-9]{1,4}")


class StripeUnavailableError(ExpectedError):
    """A request to Stripe failed. The message names the cause and contains no data of any delivery."""

    def __init__(
        self, message: str, status: int | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``status``, ``code`` and ``headers`` are those of Stripe's response, ``None`` if there was none."""
        super().__init__(message)
        headers = headers or {}
        self.status = status
        self.should_retry = {"true": True, "false": False}.get(str(headers.get("Stripe-Should-Retry")))
        """Stripe's own advice on a retry; ``None`` if the response contains none."""
        self.retry_after = int(after) if _SECONDS.fullmatch(after := str(headers.get("Retry-After"))) else 0
        """Seconds to wait before a retry, as Stripe requests; 0 if the header is missing or a date."""
        self.is_missing_resource = code == "resource_missing"
        """Whether an object that the request names does not exist: https://docs.stripe.com/error-codes."""

    def with_permission_hint(self, permission: str) -> StripeUnavailableError:
        """Return the error with advice for an operator; ``permission`` is what a restricted key needs."""
        match self.status:
            case HTTPStatus.UNAUTHORIZED:
                return StripeUnavailableError("Stripe does not accept this key", self.status)
            case HTTPStatus.FORBIDDEN:
                return StripeUnavailableError(f"the key lacks a permission: add {permission}", self.status)
            case HTTPStatus.TOO_MANY_REQUESTS:
                return StripeUnavailableError("Stripe's rate limit is exceeded: try again in a minute", self.status)
            case _:
                return self
