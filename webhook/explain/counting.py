"""Which values of a sale's facts count. Pure functions, by the rule of ``billing.sale_of``."""

from __future__ import annotations

from webhook.explain.records import Assignment, Fact
from webhook.explain.story import SaleStory

SOURCES = {0: "entry by hand", 1: "Checkout Session", 2: "invoice", 3: "PaymentIntent"}
"""The names of the sources, by the version of their facts."""


def counting_values(story: SaleStory, fact: Fact) -> list[str]:
    """Return what counts of a fact: ``user``, ``credits`` and ``money``, in this order."""
    if story.sale is None or fact.payment_id != story.sale.payment_id:
        return []
    same = [each for each in story.facts if each.payment_id == fact.payment_id]
    winners = {
        "user": max(
            (each for each in same if each.user_id), key=lambda each: (each.user_exists, each.version), default=None
        ),
        "credits": _highest(each for each in same if each.credits is not None),
        "money": _highest(each for each in same if each.money_amount is not None),
    }
    assigned = {name for each in story.assignments for name in counting_assignment(story, each)}
    return [name for name, winner in winners.items() if winner is fact and name not in assigned]


def counting_assignment(story: SaleStory, assignment: Assignment) -> list[str]:
    """Return what counts of an operator's assignment: ``user`` and ``credits``, in this order."""
    active = [each for each in story.assignments if each.withdrawn_by is None]
    latest = {
        "user": max((each.number for each in active if each.user_id), default=None),
        "credits": max((each.number for each in active if each.credits is not None), default=None),
    }
    return [name for name, number in latest.items() if number == assignment.number]


def _highest(facts: object) -> Fact | None:
    return max(facts, key=lambda each: each.version, default=None)  # type: ignore[call-overload,no-any-return]
