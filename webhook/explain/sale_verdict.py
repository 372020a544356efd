"""The verdict on a sale."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from webhook.explain.outcome import Verdict, discarded, is_payer, paid_by, parked
from webhook.explain.records import Action, ParkedEvent
from webhook.explain.settlement import Settlement, settlement
from webhook.explain.story import SaleStory, User
from webhook.explain.wording import counted, moment, money

_LONGEST_DELAY = timedelta(days=14)
"""Delayed payment methods confirm or fail within it: https://docs.stripe.com/payments/payment-methods."""


def of_sale(story: SaleStory) -> Verdict:
    """Return the verdict on a sale, and who paid, if that is known."""
    found = _first(story)
    if found.code == "erased" or story.payer_email is None:
        return found
    found = replace(found, note=paid_by(story.payer_email, story.user))
    if (
        found.needs_attention
        or not story.is_payer_searched
        or not story.user
        or is_payer(story.payer_email, story.user)
    ):
        return found
    remedy = (
        "ask at the payer's address which account the credits are for; "
        "assign the sale to another account only after an answer from there"
    )
    return replace(found, needs_attention=True, remedy=remedy)


def _first(story: SaleStory) -> Verdict:
    """Return the first verdict that applies."""
    waiting = [event for event in story.parked if event.resolution is None]
    if story.erased or (story.sale and story.sale.forgotten and story.unsettled_reason):
        return Verdict("erased", "This sale belonged to a user who was erased: nothing more is stored for it.")
    if waiting:
        is_granted = any(row.type == "PURCHASE" for row in story.rows)
        return parked(waiting[0], is_granted=is_granted, reported=story.reported)
    if story.sale is None:
        return _by_hand(story) if story.rows else _without_sale(story)
    if not story.sale.paid:
        return _pending(story)
    return _unsettled(story) if story.unsettled_reason else _settled(story)


def _discarded_events(story: SaleStory) -> list[ParkedEvent]:
    return [event for event in story.parked if event.resolution == "discarded"]


def _without_sale(story: SaleStory) -> Verdict:
    if ended := _discarded_events(story):
        return discarded(ended[0])
    known = "a refund or dispute" if story.reversals else "a link to an invoice" if story.links else "an event"
    return Verdict(
        "unknown_sale",
        f"Only {known} of {story.payment_id} is known here, not the sale itself.",
        needs_attention=True,
        remedy=f"reconcile this payment: webhook reconcile {story.payment_id}",
    )


def _by_hand(story: SaleStory) -> Verdict:
    total = sum(row.amount for row in story.rows)
    at = moment(story.rows[0].created_at)
    return Verdict("granted", f"{counted(total, 'credit')} were entered by hand for {_owner(story)} on {at}.")


def _pending(story: SaleStory) -> Verdict:
    since = min(fact.recorded_at for fact in story.facts)
    price = money(*story.price)
    if story.read_at - since <= _LONGEST_DELAY:
        return Verdict(
            "pending",
            f"The payment of {price} uses a delayed method and is pending since {moment(since)}: "
            "the credits follow when Stripe confirms it.",
        )
    return Verdict(
        "never_paid",
        f"The payment of {price} is not confirmed since {moment(since)}: it has probably failed or expired.",
        needs_attention=True,
        remedy=f"look at the payment in Stripe's Dashboard; if it succeeded: webhook reconcile {story.payment_id}",
    )


def _unsettled(story: SaleStory) -> Verdict:
    if ended := _discarded_events(story):
        return discarded(ended[0])
    if story.sale and story.sale.credits is None:
        return Verdict(
            "no_credits", "The payment is known, but no source names credits for it: it has nothing to do with credits."
        )
    return Verdict(
        "unsettled",
        f"The sale is paid and not settled ({story.unsettled_reason}), and no event of it is parked.",
        needs_attention=True,
        remedy=f"webhook reconcile {story.payment_id}",
    )


def _settled(story: SaleStory) -> Verdict:
    result = settlement(story)
    if result is None or not result.is_settled:
        return Verdict(
            "inconsistent",
            "The ledger rows of the sale do not add up to what its facts say.",
            needs_attention=True,
            remedy=f"webhook reconcile {story.payment_id}; if that changes nothing: webhook audit",
        )
    if result.reversed:
        return _taken_back(story, result)
    purchase = f"{_granted(story, result)}{_given_back(story)}."
    if story.similar:
        return _paid_twice(story, purchase)
    return Verdict("granted", purchase)


def _granted(story: SaleStory, result: Settlement) -> str:
    number, price, owner = counted(result.credits, "credit"), money(*story.price), _owner(story)
    at = min((row.created_at for row in story.rows), default=None)
    when = f" on {moment(at)}" if at else ""
    if story.assignment is None:
        return f"{number} were granted to {owner}{when} for {price}"
    by = f"by an operator on {moment(action.created_at)}" if (action := _action(story)) else "by an operator"
    if all(row.user_id == story.assignment.user_id for row in story.rows):
        return f"{number} were granted to {owner}{when} for {price}, assigned {by}"
    return f"{number} were granted{when} for {price} and moved to {owner} {by}"


def _owner(story: SaleStory) -> str:
    """Return the e-mail address of the account, else its id."""
    user_id = story.sale.user_id if story.sale and story.sale.user_id else story.rows[0].user_id if story.rows else None
    return (story.user.email if story.user else None) or user_id or "nobody"


def _action(story: SaleStory) -> Action | None:
    """Return the operator's action that assigned the sale to its user."""
    number = story.assignment.number if story.assignment else None
    return next((action for action in story.actions if action.number == number), None)


def _given_back(story: SaleStory) -> str:
    kinds = sorted({"a dispute was won" if each.is_dispute else "a refund failed" for each in story.reversals})
    return f"; {' and '.join(kinds)}, so nothing is taken back" if kinds else ""


def _taken_back(story: SaleStory, result: Settlement) -> Verdict:
    taken = result.credits - result.target
    causes = sorted({"dispute" if each.is_dispute else "refund" for each in story.reversals if each.money_amount})
    all_of_them = "all of them" if result.target == 0 else str(taken)
    return Verdict(
        "taken_back",
        f"{_granted(story, result)}, and {all_of_them} were taken back after a {' and a '.join(causes)}"
        f"{_debt(story.user)}.",
    )


def _debt(user: User | None) -> str:
    return f"; the user now owes {counted(-user.available, 'credit')}" if user and user.available < 0 else ""


def _paid_twice(story: SaleStory, purchase: str) -> Verdict:
    other = story.similar[0]
    return Verdict(
        "paid_twice",
        f"{purchase} The user bought the same with {other.payment_id} on {moment(other.created_at)}: "
        "perhaps paid twice by mistake.",
        needs_attention=True,
        remedy="ask the user; a refund of one payment at Stripe takes its credits back",
    )
