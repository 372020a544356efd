"""Assignments: an operator sets the user or the credits of a sale, or ends the latest assignment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from webhook.actions.action_log import log_action
from webhook.errors import ExpectedError
from webhook.events.event import Event, EventScope, read_event
from webhook.events.facts import Fact, Facts, Ignored, Interpretation, Sale, Unresolvable
from webhook.events.fields import IDENTIFIER
from webhook.events.interpret import interpret
from webhook.events.lookups import no_lookups
from webhook.ledger.ledger import LatestAssignment, Ledger, ParkedEvent
from webhook.ledger.operator import Assigned, Assignment, Operator, OperatorLedger
from webhook.remedies import remedy
from webhook.retry import SALE_WITHOUT_EVENT
from webhook.stripe_api.client import StripeAPI

UNREAD = ("wrong_mode", "unreadable", "missing_api_key", "missing_object")
"""The reasons of events whose facts about money are not known."""
_PAYMENT = re.compile(r"(pi|in|cs)_[!-~]{1,250}")

GetStripe = Callable[[], StripeAPI | None]
"""Returns the access to Stripe's API. It is called only if an event has to be read again."""


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


@dataclass(frozen=True)
class Target:
    """The sale that a request names."""

    payment_id: str | None
    """One of its payments; ``None`` if only the body of its event names it."""
    event_id: str | None = None
    """The parked event, if the request names one."""
    unrecorded: tuple[Event, ...] = ()
    """The events that may report more about money than the database knows."""


@dataclass(frozen=True)
class Prepared:
    """An assignment whose sale is recorded, and the assignment that it ends."""

    assignment: Assignment
    ends: LatestAssignment | None = None


def find_target(name: str, ledger: Ledger) -> Target:
    """Return the sale that an event or payment names, and change nothing; raises :class:`NotAssignableError`."""
    event = ledger.parked_event(name) if IDENTIFIER.fullmatch(name) else None
    if event is not None:
        return _target_of(event)
    if not _PAYMENT.fullmatch(name):
        raise NotAssignableError(f"never parked: {name}: name the payment of its sale, pi_…, in_… or cs_…")
    return _target_of_payment(name, ledger)


def prepare(request: Request, ledger: Ledger, get_stripe: GetStripe) -> Prepared:
    """Record what the sale's parked events report, and return the assignment of the payment that the request names.

    Raises :class:`NotAssignableError` or :class:`LedgerUnavailableError`.
    """
    target = find_target(request.name, ledger)
    recorded = [_record(event, ledger, get_stripe) for event in target.unrecorded]
    payment_id = recorded[0] if target.event_id and recorded else target.payment_id
    if payment_id is None:
        raise NotAssignableError(f"{request.name} is not the event of a sale")
    ends = _latest(payment_id, request, ledger) if request.withdraws else None
    withdraws = (ends.number if ends else 0) if request.withdraws else None
    assignment = Assignment(request.id, payment_id, request.user_id, request.credits, withdraws, target.event_id)
    return Prepared(assignment, ends)


def assign(
    assignment: Assignment,
    operator: Operator,
    operators: OperatorLedger,
    *,
    allow_debt: bool,
    most_credits: int | None = None,
) -> Assigned:
    """Assign the sale or withdraw an assignment, once for its id, and log that.

    Raises :class:`LedgerUnavailableError`, :class:`RuleError` or :class:`NotOperatorError`.
    """
    assigned = operators.assign(assignment, operator, allow_debt=allow_debt, most_credits=most_credits)
    if assigned.is_new:
        action = "assign" if assignment.withdraws is None else "withdraw"
        log_action(action, assigned.number, operator, credits_given=assigned.given, credits_taken=assigned.taken)
    return assigned


def read_sale(event: Event, get_stripe: GetStripe) -> Interpretation:
    """Return what the event reports about money, even if its user or credits are unusable."""
    is_live = event.livemode is True
    accounts = frozenset({event.account}) if isinstance(event.account, str) else frozenset[str]()
    stripe = get_stripe()
    lookups = stripe.resolver(event.account) if stripe else no_lookups
    scope = EventScope(is_live, accounts)
    interpretation = interpret(event, scope, lookups)
    if isinstance(interpretation, Ignored) or (isinstance(interpretation, Unresolvable) and not interpretation.facts):
        # A price that names no credits, or is missing at Stripe, must not stand in the way of the operator's number.
        return interpret(event, scope)
    return interpretation


def _target_of(event: ParkedEvent) -> Target:
    if event.resolution is None and event.reason in UNREAD:
        raise NotAssignableError(f"{event.id} is parked as {event.reason}: {remedy(event, event.id)}")
    unrecorded = () if event.reason in UNREAD else _bodies([event])
    if event.payment_id is None and not unrecorded:
        raise NotAssignableError(f"{event.id} is not the event of a sale")
    return Target(event.payment_id, event.id, unrecorded)


def _bodies(events: Iterable[ParkedEvent]) -> tuple[Event, ...]:
    return tuple(read_event(each.payload) for each in events if each.payload and each.type != SALE_WITHOUT_EVENT)


def _target_of_payment(name: str, ledger: Ledger) -> Target:
    """Return the sale of a payment. A session may be parked by its payment."""
    parked = [
        event for event in _events_that_name(name, ledger) if event.resolution is None and event.reason not in UNREAD
    ]
    by_payment = {event.payment_id: event for event in parked if event.payment_id}
    if name not in by_payment and len(by_payment) == 1 and name.startswith("cs_"):
        [name] = by_payment
    return Target(name, unrecorded=_bodies(event for event in parked if event.payment_id == name))


def _events_that_name(payment_id: str, ledger: Ledger) -> list[ParkedEvent]:
    """Return the parked events that name a payment, by index: the table keeps all resolved events."""
    [found] = ledger.rows("explain_find", id=payment_id)
    events = (ledger.parked_event(event_id) for event_id in found["event_ids"])
    return [event for event in events if event]


def _latest(payment_id: str, request: Request, ledger: Ledger) -> LatestAssignment | None:
    """Return the latest assignment of a sale, ``None`` if the withdrawal is a repetition and it was the last one."""
    latest = ledger.latest_assignment(payment_id)
    if latest is None and not ledger.has_action(request.id):
        raise NotAssignableError(f"no assignment of {payment_id} can be withdrawn")
    return latest


def _record(event: Event, ledger: Ledger, get_stripe: GetStripe) -> str | None:
    """Record what the event reports about money, and return the payment."""
    interpretation = read_sale(event, get_stripe)
    match interpretation:
        case Facts(facts) | Unresolvable(facts=(_, *_) as facts):
            if ledger.record(event.id, facts).reason == "unknown_user":
                ledger.record(event.id, [_without_user(fact) for fact in facts])
            return interpretation.payment_id
        case Unresolvable(reason) | Ignored(reason):
            raise NotAssignableError(f"{event.id} reports no sale that could be assigned ({reason}): retry it")


def _without_user(fact: Fact) -> Fact:
    return replace(fact, user_id=None, unusable="unknown_user") if isinstance(fact, Sale) else fact
