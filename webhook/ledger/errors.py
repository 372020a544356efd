"""The errors of the ledger: a database that cannot be reached, and one that rejects a write."""

from __future__ import annotations

from webhook.errors import ExpectedError


class LedgerUnavailableError(ExpectedError):
    """The database cannot record anything now. The message gives the cause and contains no data of any delivery."""


class BatchRejectedError(Exception):
    """A batch cannot be written as a whole; one of its items may be the cause."""


class LedgerRefusedError(LedgerUnavailableError, BatchRejectedError):
    """The database answered and refused the write; in a batch, one delivery may be the cause."""


class RuleError(LedgerRefusedError):
    """A function of the schema refused its arguments. The message is for operators and may name users and credits."""

    def __init__(self, code: str, message: str) -> None:
        """``code`` is the SQLSTATE, such as ``CR001``."""
        super().__init__(message)
        self.code = code


class NotOperatorError(ExpectedError):
    """The login may not act as ``billing_operator``. The message names the login and the grant that it needs."""
