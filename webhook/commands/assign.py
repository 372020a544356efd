"""``webhook assign``: an operator sets the user or the credits of a sale."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import click

from webhook.actions.assign import Request, prepare
from webhook.actions.assign import assign as do_assign
from webhook.commands.operator import is_interactive, operator_ledger, set_up_log
from webhook.ledger.errors import LedgerUnavailableError, RuleError
from webhook.ledger.ledger import LatestAssignment, Ledger
from webhook.ledger.operator import Assigned, Assignment, Operator, OperatorLedger
from webhook.settings import read_operator_database_url, read_stripe_settings
from webhook.stripe_api.client import StripeAPI, stripe_api

__all__ = ["Request", "assign"]

_DEBT = "CR001"


def assign(request: Request, operator: Operator) -> bool:
    """Print the id, assign the sale or withdraw the latest assignment, and print what that changed.

    Returns whether the sale lacks nothing any more. A debt has to be allowed, or confirmed on a terminal. Raises
    :class:`NotAssignableError`, :class:`LedgerUnavailableError`, :class:`RuleError` or :class:`NotOperatorError`.
    """
    click.echo(f"id       {request.id}")
    set_up_log()
    try:
        with closing(Ledger(read_operator_database_url())) as ledger, operator_ledger() as operators:
            operators.login()  # before anything is recorded
            prepared = prepare(request, ledger, _stripe)
            if prepared.ends:
                click.echo(_ended(prepared.ends))
            assigned = _assign(prepared.assignment, operator, operators, allow_debt=request.allow_debt)
    except RuleError:
        raise
    except LedgerUnavailableError as error:
        raise LedgerUnavailableError(f"{error}: repeat the command with --id {request.id}") from None
    for line in _lines(assigned):
        click.echo(line)
    return assigned.unsettled is None


def _stripe() -> StripeAPI | None:
    return stripe_api(read_stripe_settings())


def _assign(assignment: Assignment, operator: Operator, operators: OperatorLedger, *, allow_debt: bool) -> Assigned:
    try:
        return do_assign(assignment, operator, operators, allow_debt=allow_debt)
    except RuleError as error:
        if error.code != _DEBT or not is_interactive():
            raise
        click.confirm(f"{error}\nMake this debt?", abort=True, err=True)
    return do_assign(assignment, operator, operators, allow_debt=True)


def _ended(latest: LatestAssignment) -> str:
    said = [f"user {latest.user_id}"] if latest.user_id else []
    said += [f"{latest.credits} credits"] if latest.credits else []
    return f"ends     action {latest.number}: {', '.join(said)}"


def _lines(assigned: Assigned) -> Sequence[str]:
    lines = [f"action   {assigned.number}" + ("" if assigned.is_new else ", done before")]
    lines += [f"credits  {each.credits:+} for {each.user_id}, balance {each.balance}" for each in assigned.changes]
    if assigned.unsettled:
        lines.append(f"missing  the sale is not settled: {assigned.unsettled}")
    elif not assigned.is_paid:
        lines.append("unpaid   the sale grants its credits once it is paid")
    elif assigned.is_new and not assigned.changes:
        lines.append("credits  unchanged")
    return lines
