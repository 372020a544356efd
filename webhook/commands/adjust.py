"""``webhook adjust``: give credits to a user, or take them."""

from __future__ import annotations

import click

from webhook.actions.adjust import adjust as do_adjust
from webhook.commands.operator import operator_ledger, set_up_log
from webhook.ledger.errors import LedgerUnavailableError, RuleError
from webhook.ledger.operator import Adjusted, Adjustment, Operator


def adjust(adjustment: Adjustment, operator: Operator, *, allow_debt: bool) -> None:
    """Print the id, adjust the balance once for that id, and print the result.

    Raises :class:`LedgerUnavailableError`, :class:`RuleError` or :class:`NotOperatorError`.
    """
    click.echo(f"id       {adjustment.id}")
    set_up_log()
    try:
        with operator_ledger() as operators:
            adjusted = do_adjust(adjustment, operator, operators, allow_debt=allow_debt)
    except RuleError:
        raise
    except LedgerUnavailableError as error:
        raise LedgerUnavailableError(f"{error}: repeat the command with --id {adjustment.id}") from None
    for line in _lines(adjustment, adjusted):
        click.echo(line)


def _lines(adjustment: Adjustment, adjusted: Adjusted) -> list[str]:
    if not adjusted.is_new:
        return [f"action   {adjusted.number}, done before", f"balance  {adjusted.balance}"]
    before = adjusted.balance - adjustment.amount
    return [f"action   {adjusted.number}", f"balance  {before} → {adjusted.balance}"]
