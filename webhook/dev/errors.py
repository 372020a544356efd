"""The errors of ``webhook dev`` and ``webhook demo``; each message is one line with the cause or the remedy."""

from __future__ import annotations

from webhook.errors import ExpectedError


class DevError(ExpectedError):
    """``webhook dev`` cannot continue, or is not running."""


class PostgresError(ExpectedError):
    """The embedded Postgres cannot run."""
