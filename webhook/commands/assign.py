"""``webhook assign``: an operator sets the user or the credits of a sale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import click

from webhook.commands.operator import is_interactive, log_action, operator_ledger
from webhook.errors import ExpectedError
from webhook.events.event import Event, EventScope, read_event
from webhook.events.facts import Fact, Facts, Ignored, Sale, Unresolvable
from webhook.events.fields import IDENTIFIER
from webhook.events.interpret import interpret
from webhook.events.lookups import no_lookups
from webhook.ledger.errors import LedgerUnavailableError, RuleError
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.ledger.operator import Assigned, Assignment, Operator, OperatorLedger
from webhook.remedies import remedy
from webhook.retry import SALE_WITHOUT_EVENT
from webhook.settings import read_operator_database_url, read_stripe_settings
from webhook.stripe_api.client import stripe_api

UNREAD = ("wrong_mode", "unreadable", "missing_api_key", "missing_object")
"""The reasons of events whose facts about money are not known."""
_DEBT = "CR001"
_PAYMENT = re.compile(r"(pi|in|cs)_[!-~]{1,250}")


class NotAssignableError(ExpectedError):
    """The sale cannot be assigned. The message names the cause and the remedy."""


@dataclass(frozen=True)
class Request:
    """What the operator asked for: user, credits or both for a sale, or the end of the latest assignment."""

    name: str
    """A parked event, or one of the sale's payments."""
    user_id: str | None
    credits: int | None
    id: str
    """The same id acts once."""
    withdraws: bool = False
    allow_debt: bool = False


def assign(request: Request, operator: Operator) -> bool:
    """Print the id, assign the sale or withdraw the latest assignment, and print what that changed.

    Returns whether the sale lacks nothing any more. A debt has to be allowed, or confirmed on a terminal. Raises
    :class:`NotAssignableError`, :class:`LedgerUnavailableError`, :class:`RuleError` or :class:`NotOperatorError`.
    """
    click.echo(f"id       {request.id}")
    try:
        with closing(Ledger(read_operator_database_url())) as ledger, operator_ledger() as operators:
            operators.login()  # before anything is recorded
            assigned = _assign(_assignment(request, ledger), operator, operators, allow_debt=request.allow_debt)
    except RuleError:
        raise
    except LedgerUnavailableError as error:
        raise LedgerUnavailableError(f"{error}: repeat the command with --id {request.id}") from None
    if assigned.is_new:
        action = "withdraw" if request.withdraws else "assign"
        log_action(action, assigned.number, operator, credits_given=assigned.given, credits_taken=assigned.taken)
    for line in _lines(assigned):
        click.echo(line)
    return assigned.unsettled is None


def _assign(assignment: Assignment, operator: Operator, operators: OperatorLedger, *, allow_debt: bool) -> Assigned:
    try:
        return operators.assign(assignment, operator, allow_debt=allow_debt)
    except RuleError as error:
        if error.code != _DEBT or not is_interactive():
            raise
        click.confirm(f"{error}\nMake this debt?", abort=True, err=True)
    return operators.assign(assignment, operator, allow_debt=True)


def _assignment(request: Request, ledger: Ledger) -> Assignment:
    """Return the assignment of the payment that the request names, after recording what parked events report."""
    event = ledger.parked_event(request.name) if IDENTIFIER.fullmatch(request.name) else None
    if event is None and not _PAYMENT.fullmatch(request.name):
        raise NotAssignableError(f"never parked: {request.name}: name the payment of its sale, pi_…, in_… or cs_…")
    payment_id = _payment_of(request.name, ledger) if event is None else _recorded_payment(event, ledger)
    withdraws = _latest(payment_id, request, ledger) if request.withdraws else None
    event_id = None if event is None else event.id
    return Assignment(request.id, payment_id, request.user_id, request.credits, withdraws, event_id)


def _payment_of(name: str, ledger: Ledger) -> str:
    """Return the payment that an id names, after recording its open events. A session may be parked by its payment."""
    parked = [event for event in ledger.find_parked(name) if event.resolution is None and event.reason not in UNREAD]
    by_payment = {event.payment_id: event for event in parked if event.payment_id}
    if name not in by_payment and len(by_payment) == 1 and name.startswith("cs_"):
        [name] = by_payment
    for event in parked:
        if event.payment_id == name:
            _recorded_payment(event, ledger)
    return name


def _latest(payment_id: str, request: Request, ledger: Ledger) -> int:
    """Return the number of the latest assignment of a sale, and print it."""
    latest = ledger.latest_assignment(payment_id)
    if latest is None:
        if ledger.has_action(request.id):
            return 0  # the withdrawal is a repetition, and it was the last one
        raise NotAssignableError(f"no assignment of {payment_id} can be withdrawn")
    said = [f"user {latest.user_id}"] if latest.user_id else []
    said += [f"{latest.credits} credits"] if latest.credits else []
    click.echo(f"ends     action {latest.number}: {', '.join(said)}")
    return latest.number


def _recorded_payment(parked: ParkedEvent, ledger: Ledger) -> str:
    """Return the payment of an event, after recording what an event with a payload reports about money."""
    if parked.resolution is None and parked.reason in UNREAD:
        raise NotAssignableError(f"{parked.id} is parked as {parked.reason}: {remedy(parked, parked.id)}")
    payment_id = parked.payment_id
    if parked.payload is not None and parked.type != SALE_WITHOUT_EVENT and parked.reason not in UNREAD:
        payment_id = _record(read_event(parked.payload), ledger)
    if payment_id is None:
        raise NotAssignableError(f"{parked.id} is not the event of a sale")
    return payment_id


def _record(event: Event, ledger: Ledger) -> str | None:
    """Record what the event reports about money, even if its user or credits are unusable. Return the payment."""
    is_live = event.livemode is True
    accounts = frozenset({event.account}) if isinstance(event.account, str) else frozenset[str]()
    stripe = stripe_api(read_stripe_settings())
    lookups = stripe.resolver(event.account) if stripe else no_lookups
    scope = EventScope(is_live, accounts)
    interpretation = interpret(event, scope, lookups)
    if isinstance(interpretation, Ignored) or (isinstance(interpretation, Unresolvable) and not interpretation.facts):
        # A price that names no credits, or is missing at Stripe, must not stand in the way of the operator's number.
        interpretation = interpret(event, scope)
    match interpretation:
        case Facts(facts) | Unresolvable(facts=(_, *_) as facts):
            if ledger.record(event.id, facts).reason == "unknown_user":
                ledger.record(event.id, [_without_user(fact) for fact in facts])
            return interpretation.payment_id
        case Unresolvable(reason) | Ignored(reason):
            raise NotAssignableError(f"{event.id} reports no sale that could be assigned ({reason}): retry it")


def _without_user(fact: Fact) -> Fact:
    return replace(fact, user_id=None, unusable="unknown_user") if isinstance(fact, Sale) else fact


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
