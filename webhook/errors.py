"""The base class of the errors that a command reports in one line."""

from __future__ import annotations


class ExpectedError(Exception):
    """An error that is not a bug. The message is one line; it names the cause and contains no secret."""
