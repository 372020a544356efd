"""Where the console reports errors and failed logins."""

from __future__ import annotations

from typing import Protocol

from webhook.observability.instrumentation import Delivery


class Reports(Protocol):
    """Reports, as :class:`webhook.observability.instrumentation.Instrumentation` does."""

    def unavailable(self, delivery: Delivery, reason: str, error: Exception, /) -> None:
        """Report that the database or Stripe did not answer."""

    def bug(self, delivery: Delivery, error: Exception, /) -> None:
        """Report an unexpected error by its type and location."""

    def failed_login(self) -> None:
        """Report a failed login, without the name that was sent."""
