"""Whether the console's database login may act as an operator."""

from __future__ import annotations

from time import monotonic

from webhook.ledger.errors import LedgerUnavailableError, NotOperatorError
from webhook.ledger.operator import OperatorLedger

_CACHE_SECONDS = 30


class Authority:
    """Looks up the membership in ``billing_operator``, and keeps the answer for a moment."""

    def __init__(self, operators: OperatorLedger) -> None:
        self._operators = operators
        self._known: tuple[bool, float] = (False, 0.0)

    def may_act(self) -> bool:
        """Return whether changes work; no, if the database does not answer."""
        answer, until = self._known
        if monotonic() < until:
            return answer
        try:
            self._operators.login()
        except NotOperatorError:
            answer = False
        except LedgerUnavailableError:
            return False
        else:
            answer = True
        self._known = (answer, monotonic() + _CACHE_SECONDS)
        return answer
