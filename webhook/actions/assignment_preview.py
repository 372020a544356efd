"""The preview of an assignment: what it would change now, computed as the database settles a sale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from webhook.actions.assign import GetStripe, NotAssignableError, Request, find_target, read_sale
from webhook.events.event import Event
from webhook.events.facts import Facts, Ignored, Sale, Unresolvable
from webhook.explain.records import Assignment, MergedSale, Rows, record
from webhook.explain.settlement import Settlement, settlement
from webhook.explain.story import SaleStory, User, load_sale
from webhook.ledger.ledger import Ledger


@dataclass(frozen=True)
class ExpectedChange:
    """The credits that a user would get (below 0: lose)."""

    user: User
    credits: int

    @property
    def available(self) -> int:
        """The available credits afterwards; below 0 is a debt."""
        return self.user.available + self.credits

    @property
    def makes_debt(self) -> bool:
        """Whether it takes credits that the user has spent or holds."""
        return self.credits < 0 and self.available < 0


@dataclass(frozen=True)
class AssignmentPreview:
    """What an assignment or withdrawal would do. Nothing is recorded for it."""

    payment_id: str
    story: SaleStory
    """The sale as it would be."""
    settlement: Settlement | None
    """``None`` if the sale is not paid yet, or would still lack its user or credits, and for a withdrawal."""
    changes: tuple[ExpectedChange, ...] = ()
    """Those who lose credits first."""
    ends: Assignment | None = None
    """The assignment that a withdrawal ends."""

    @property
    def missing(self) -> str | None:
        """What the sale would still lack: ``user`` or ``credits``."""
        sale = self.story.sale
        if self.ends or sale is None:
            return None
        return "user" if sale.user_id is None else "credits" if sale.credits is None else None

    @property
    def is_paid(self) -> bool:
        """Whether the payment is confirmed."""
        return bool(self.story.sale and self.story.sale.paid)

    @property
    def debts(self) -> list[ExpectedChange]:
        """The users who would owe credits."""
        return [each for each in self.changes if each.makes_debt]

    @property
    def most_credits(self) -> int:
        """The credits that are given or taken, whichever is more."""
        given = sum(max(each.credits, 0) for each in self.changes)
        return max(given, sum(max(-each.credits, 0) for each in self.changes))


def preview_assignment(request: Request, rows: Rows, ledger: Ledger, get_stripe: GetStripe) -> AssignmentPreview:
    """Return what the assignment would change. ``rows`` reads the story; ``ledger`` reads the parked events.

    Raises :class:`NotAssignableError`, :class:`LedgerUnavailableError` or :class:`StripeUnavailableError`.
    """
    target = find_target(request.name, ledger)
    reported = [fact for event in target.unrecorded for fact in _sales_in(event, get_stripe)]
    payment_id = target.payment_id or next((fact.payment_id for fact in reported), None)
    if payment_id is None:
        raise NotAssignableError(f"{request.name} is not the event of a sale")
    story = _completed(payment_id, load_sale(rows, payment_id), reported)
    if story.sale and story.sale.erased:
        raise NotAssignableError(f"The sale {payment_id} belonged to a user who was erased.")
    if request.withdraws:
        return _withdrawal(payment_id, story)
    return _assignment(payment_id, story, request, rows)


def _sales_in(event: Event, get_stripe: GetStripe) -> list[Sale]:
    match read_sale(event, get_stripe):
        case Facts(facts) | Unresolvable(facts=(_, *_) as facts):
            return [fact for fact in facts if isinstance(fact, Sale)]
        case Unresolvable(reason) | Ignored(reason):
            raise NotAssignableError(f"{event.id} reports no sale that could be assigned ({reason}): retry it")


def _completed(payment_id: str, story: SaleStory | None, reported: list[Sale]) -> SaleStory:
    """Return the story with what unrecorded events report about its sale; raises :class:`NotAssignableError`."""
    story = story or _empty(payment_id)
    sale = story.sale
    for fact in sorted(reported, key=lambda each: -each.version):
        known = sale or MergedSale(payment_id, None, None, None, None, False, False, False, None)  # noqa: FBT003
        has_money = known.money_amount is not None
        sale = replace(
            known,
            credits=fact.credits if known.credits is None else known.credits,
            money_amount=known.money_amount if has_money else fact.money_amount,
            currency=known.currency if has_money else fact.currency,
            paid=known.paid or fact.paid,
        )
    if sale is None:
        raise NotAssignableError(
            f"No sale {payment_id} is known. A paid Checkout Session is known by its payment, pi_…. "
            "webhook reconcile finds sales whose events never arrived."
        )
    return replace(story, sale=sale, unsettled_reason=None)


def _empty(payment_id: str) -> SaleStory:
    return SaleStory(
        payment_id=payment_id,
        payment_ids=(payment_id,),
        sale=None,
        unsettled_reason=None,
        facts=(),
        links=(),
        assignments=(),
        claims=(),
        reversals=(),
        rows=(),
        parked=(),
        actions=(),
        user=None,
        holds=(),
        similar=(),
        erased=False,
        read_at=datetime.now(UTC),
    )


def _withdrawal(payment_id: str, story: SaleStory) -> AssignmentPreview:
    latest = next((each for each in story.assignments if each.withdrawn_by is None), None)
    if latest is None:
        raise NotAssignableError(f"no assignment of {payment_id} can be withdrawn")
    return AssignmentPreview(payment_id, story, None, ends=latest)


def _assignment(payment_id: str, story: SaleStory, request: Request, rows: Rows) -> AssignmentPreview:
    if request.user_id and _user(rows, request.user_id) is None:
        raise NotAssignableError(f"There is no user {request.user_id}.")
    sale = story.sale
    assert sale  # noqa: S101 - _completed() raises if there is none
    sale = replace(sale, user_id=request.user_id or sale.user_id, credits=request.credits or sale.credits)
    story = replace(story, sale=sale)
    result = settlement(story) if sale.user_id else None
    changes = _changes(story, sale.user_id, result, rows) if result and sale.user_id else ()
    return AssignmentPreview(payment_id, story, result, changes)


def _changes(story: SaleStory, user_id: str, result: Settlement, rows: Rows) -> tuple[ExpectedChange, ...]:
    before = _credits_by_user(story)
    after = {user_id: result.target}
    changes = {each: after.get(each, 0) - before.get(each, 0) for each in {*before, *after}}
    users = ((_user(rows, each), credits_) for each, credits_ in changes.items() if credits_)
    expected = (ExpectedChange(user, credits_) for user, credits_ in users if user)
    return tuple(sorted(expected, key=lambda each: each.credits))


def _credits_by_user(story: SaleStory) -> dict[str, int]:
    users: Iterable[str] = {row.user_id for row in story.rows}
    return {user: sum(row.amount for row in story.rows if row.user_id == user) for user in users}


def _user(rows: Rows, user_id: str) -> User | None:
    found = rows.rows("explain_user", user_id=user_id)
    return record(User, found[0]) if found else None
