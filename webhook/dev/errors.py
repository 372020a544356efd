"""The errors of ``webhook dev`` and ``webhook demo``; each message is one line with the cause or the remedy."""

from __future__ import annotations


class DevError(Exception):
    """``webhook dev`` cannot continue, or is not running."""


class PostgresError(Exception):
    """The embedded Postgres cannot run."""
