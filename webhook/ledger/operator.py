"""The operator's functions of ``billing``, called as ``billing_operator``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from webhook.ledger.connections import CONNECTIONS, NO_ROLE, OPERATOR, Database, Row
from webhook.ledger.errors import LedgerRefusedError, NotOperatorError, RuleError
from webhook.ledger.queries import query


@dataclass(frozen=True)
class Operator:
    """Who acts, where and why. The database adds the login."""

    by: str
    reason: str
    channel: str = "cli"


@dataclass(frozen=True)
class Adjustment:
    """Credits for a user, or from a user if ``amount`` is below 0. The same ``id`` acts once."""

    id: str
    user_id: str
    amount: int
    description: str | None = None
    """What the user's history shows."""


@dataclass(frozen=True)
class Adjusted:
    """The result of an adjustment: the number of its action, the balance in credits, and whether it was new."""

    number: int
    balance: int
    is_new: bool


@dataclass(frozen=True)
class Assignment:
    """User, credits or both for a sale, or the end of an assignment. The same ``id`` acts once."""

    id: str
    payment_id: str
    user_id: str | None
    credits: int | None
    withdraws: int | None = None
    """The number of the assignment to end; then there is no user and no credits."""
    event_id: str | None = None
    """The parked event that the operator named. It is resolved if the sale lacks nothing any more."""


@dataclass(frozen=True)
class Change:
    """The credits that a user got from an action (below 0: lost), and the balance afterwards."""

    user_id: str
    credits: int
    balance: int


@dataclass(frozen=True)
class Assigned:
    """The result of an assignment or withdrawal."""

    number: int
    is_new: bool
    is_paid: bool
    unsettled: str | None
    """Why the sale is not settled, as a parked reason."""
    changes: tuple[Change, ...]

    @property
    def given(self) -> int:
        """The credits that users got."""
        return sum(max(change.credits, 0) for change in self.changes)

    @property
    def taken(self) -> int:
        """The credits that users lost, not below 0."""
        return sum(max(-change.credits, 0) for change in self.changes)


class OperatorLedger:
    """Calls of the functions that only operators may execute.

    Each method raises :class:`LedgerUnavailableError`, :class:`RuleError` if the function refuses its arguments, or
    :class:`NotOperatorError`.
    """

    def __init__(self, database_url: str, *, connections: int = CONNECTIONS) -> None:
        self._url = database_url
        self._database = Database(database_url, role=OPERATOR, connections=connections)

    def adjust(self, adjustment: Adjustment, operator: Operator, *, allow_debt: bool) -> Adjusted:
        """Give or take credits. Without ``allow_debt``, the user's available credits must not fall below 0."""
        [row] = self._rows("adjust", **vars(adjustment), **vars(operator), allow_debt=allow_debt)
        return Adjusted(**row)

    def assign(
        self, assignment: Assignment, operator: Operator, *, allow_debt: bool, most_credits: int | None = None
    ) -> Assigned:
        """Assign a sale or withdraw an assignment. Without ``allow_debt``, no user may lose credits that are spent.

        ``most_credits`` limits what is set, given and taken.
        """
        options = {"allow_debt": allow_debt, "most_credits": most_credits}
        [row] = self._rows("assign", **vars(assignment), **vars(operator), **options)
        result = row["result"]
        changes = (Change(each["user_id"], each["credits"], each["balance"]) for each in result["changes"])
        return Assigned(result["number"], result["is_new"], result["paid"], result["unsettled"], tuple(changes))

    def discard(self, event_ids: Sequence[str], operator: Operator) -> dict[str, int | None]:
        """Discard parked events, all or none. Return the number of each one's action, ``None`` if it was discarded."""
        rows = self._rows("discard", event_ids=list(event_ids), **vars(operator))
        return {row["event_id"]: row["number"] for row in rows}

    def login(self) -> str:
        """Return the login of the connection, which may act as an operator."""
        [row] = self._rows("login")
        return str(row["login"])

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    def _rows(self, name: str, **parameters: Any) -> list[Row]:
        try:
            return self._database.call(query(name), parameters)
        except RuleError:
            raise
        except LedgerRefusedError as error:
            self._require_membership()
            raise error from None

    def _require_membership(self) -> None:
        """Raise :class:`NotOperatorError` if the login may not become ``billing_operator``."""
        try:
            self._database.call(query("login"), {})
        except LedgerRefusedError:
            with closing(Database(self._url, role=NO_ROLE)) as database:
                [row] = database.call(query("login"), {})
            raise NotOperatorError(
                f"the login {row['login']} may not act as {OPERATOR}: as the schema's owner, "
                f"grant {OPERATOR} to {row['login']}"
            ) from None
