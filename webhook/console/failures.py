"""The answers to errors: a page for people, with the status."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from werkzeug.exceptions import HTTPException

from webhook.console.reading import PageTimeoutError
from webhook.errors import ExpectedError
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError, NotOperatorError, RuleError
from webhook.stripe_api.errors import StripeUnavailableError

_CANCELLED = "SQLSTATE 57014"
"""The database cancelled a statement at its timeout: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


@dataclass(frozen=True)
class Failure:
    """What a page shows about an error."""

    status: int
    title: str
    message: str
    is_outage: bool = False
    """Whether the database or Stripe did not answer."""
    is_bug: bool = False


def failure_of(error: Exception) -> Failure:  # noqa: PLR0911 - one line a case
    """Return what a page shows about an error. The message of a bug may quote a payload and is left out."""
    match error:
        case HTTPException():
            return Failure(error.code or 500, error.name, error.description or "")
        case RuleError():
            return Failure(HTTPStatus.CONFLICT, "Nothing was changed", str(error))
        case NotOperatorError():
            return Failure(HTTPStatus.FORBIDDEN, "View only", str(error))
        case PageTimeoutError():
            return Failure(HTTPStatus.SERVICE_UNAVAILABLE, "Too slow", str(error))
        case LedgerRefusedError() if str(error).startswith(_CANCELLED):
            return failure_of(PageTimeoutError("This page took too long: search for less."))
        case LedgerUnavailableError() | StripeUnavailableError():
            side = "The database" if isinstance(error, LedgerUnavailableError) else "Stripe"
            return Failure(HTTPStatus.SERVICE_UNAVAILABLE, f"{side} does not answer", str(error), is_outage=True)
        case ExpectedError():
            return Failure(HTTPStatus.CONFLICT, "Nothing was changed", str(error))
        case _:
            return Failure(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", "The log has the details.", is_bug=True)
