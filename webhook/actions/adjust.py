"""Adjustments: an operator gives credits to a user, or takes them."""

from __future__ import annotations

from dataclasses import dataclass

from webhook.actions.action_log import log_action
from webhook.errors import ExpectedError
from webhook.explain.story import User
from webhook.ledger.operator import Adjusted, Adjustment, Operator, OperatorLedger


class TooManyCreditsError(ExpectedError):
    """The adjustment moves more credits than one action may. The message names the limit."""


@dataclass(frozen=True)
class AdjustmentPreview:
    """What an adjustment would do to a user, in credits."""

    balance: int
    available: int
    new_balance: int
    new_available: int
    """Below 0 if it makes or increases a debt."""

    @property
    def makes_debt(self) -> bool:
        """Whether it takes credits that the user has spent or holds."""
        return self.new_available < min(self.available, 0)


def preview_adjustment(user: User, amount: int) -> AdjustmentPreview:
    """Return what an adjustment by ``amount`` credits would do now."""
    return AdjustmentPreview(user.balance, user.available, user.balance + amount, user.available + amount)


def adjust(
    adjustment: Adjustment,
    operator: Operator,
    operators: OperatorLedger,
    *,
    allow_debt: bool,
    most_credits: int | None = None,
) -> Adjusted:
    """Adjust a balance once for the adjustment's id, and log that. ``most_credits`` limits the amount.

    Raises :class:`TooManyCreditsError`, :class:`LedgerUnavailableError`, :class:`RuleError` or
    :class:`NotOperatorError`.
    """
    require_few(adjustment.amount, most_credits)
    adjusted = operators.adjust(adjustment, operator, allow_debt=allow_debt)
    if adjusted.is_new:
        log_action("adjust", adjusted.number, operator, credits=adjustment.amount)
    return adjusted


def require_few(credits_: int, most_credits: int | None) -> None:
    """Raise :class:`TooManyCreditsError` for more credits than ``most_credits``, given or taken."""
    if most_credits is not None and abs(credits_) > most_credits:
        raise TooManyCreditsError(f"One action may move {most_credits} credits at most.")
