"""Verdicts on stories, without a database: story in, verdict out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhook.explain import verdict
from webhook.explain.counting import counting_assignment, counting_values
from webhook.explain.records import (
    Action,
    Assignment,
    Entry,
    Fact,
    Hold,
    MergedSale,
    ParkedEvent,
    Purchase,
    Reversal,
    UnpaidSale,
)
from webhook.explain.reply import reply
from webhook.explain.settlement import settlement
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, User, UserStory
from webhook.remedies import REMEDIES

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGO = NOW - timedelta(hours=1)
WEEKS_AGO = NOW - timedelta(days=15)
ANNA, BERT = "aaaaaaaa-0000-4000-8000-00000000000a", "bbbbbbbb-0000-4000-8000-00000000000b"

SALE = MergedSale("pi_1", ANNA, 100, 1000, "usd", paid=True, erased=False, forgotten=False, claimants=None)
FACT = Fact(
    "pi_1",
    1,
    ANNA,
    user_exists=True,
    credits=100,
    money_amount=1000,
    currency="usd",
    paid=True,
    subscription_id=None,
    customer_id=None,
    recorded_at=AGO,
)
ROW = Entry("id", ANNA, 100, "PURCHASE", "pi_1", "pi_1", 1000, "usd", None, "evt_1", None, AGO)
TAKEN = replace(ROW, amount=-55, type="REFUND", stripe_id="re_1", money_amount=-550)
SPENT = replace(ROW, amount=-10, type="GENERATION", stripe_id=None, payment_id=None)
GIVEN_BACK = replace(SPENT, amount=10, type="REFUND", refunds="id")
REFUND = Reversal("re_1", 1, "pi_1", 550, "usd", "evt_2", AGO)
PARKED = ParkedEvent(
    "evt_1", "checkout.session.completed", "unknown_user", "pi_1", BERT, None, AGO, None, None, None, None
)
DISCARDED = replace(PARKED, resolution="discarded", resolved_at=NOW, discarded_by="ann as ann", discard_reason="a test")
USER = User(ANNA, "anna@example.com", 100, 100, AGO)
UNPAID = {"sale": replace(SALE, paid=False), "rows": (), "facts": (replace(FACT, paid=False),)}


def sale_story(**fields: Any) -> SaleStory:
    """A sale of 100 credits for 10.00 dollars that is settled."""
    lists = ("links", "assignments", "claims", "reversals", "parked", "actions", "holds", "similar")
    story: dict[str, Any] = dict.fromkeys(lists, ()) | {
        "payment_id": "pi_1",
        "payment_ids": ("pi_1",),
        "sale": SALE,
        "unsettled_reason": None,
        "facts": (FACT,),
        "rows": (ROW,),
        "user": USER,
        "erased": False,
        "read_at": NOW,
    }
    return SaleStory(**story | fields)


def user_story(*rows: Entry, **fields: Any) -> UserStory:
    """A user with these ledger rows, the newest first, on one page."""
    story: dict[str, Any] = dict.fromkeys(("holds", "parked", "unpaid", "actions"), ()) | {
        "user": USER,
        "rows": rows,
        "balances": tuple(100 for _ in rows),
        "next": None,
        "is_first_page": True,
        "read_at": NOW,
    }
    return UserStory(**story | fields)


def generation_story(entry: Entry | None = None, refund: Entry | None = None, **hold: Any) -> GenerationStory:
    """A generation of 10 credits, with a hold if any of its fields is given."""
    times = {"expires_at": NOW + timedelta(hours=1), "captured_at": None, "released_at": None, "created_at": AGO}
    return GenerationStory("id", USER, entry, refund, Hold("id", 10, **times | hold) if hold else None, NOW)


TABLE: dict[str, tuple[Story, str, bool]] = {
    "settled": (sale_story(), "granted", False),
    "entered by hand": (sale_story(sale=None, facts=()), "granted", False),
    "refunded": (sale_story(reversals=(REFUND,), rows=(ROW, TAKEN)), "taken_back", False),
    "refund failed": (sale_story(reversals=(replace(REFUND, version=2, money_amount=0),)), "granted", False),
    "refund not booked": (sale_story(reversals=(REFUND,)), "inconsistent", True),
    "rows of another user": (sale_story(rows=(replace(ROW, user_id=BERT),)), "inconsistent", True),
    "bought twice": (sale_story(similar=(Purchase("pi_2", AGO),)), "paid_twice", True),
    "parked": (sale_story(sale=None, facts=(), rows=(), parked=(PARKED,)), "parked", True),
    "parked beside a granted sale": (sale_story(parked=(PARKED,)), "parked", True),
    "discarded": (sale_story(sale=None, facts=(), rows=(), parked=(DISCARDED,)), "discarded", False),
    "discarded and settled later": (sale_story(parked=(DISCARDED,)), "granted", False),
    "pending": (sale_story(**UNPAID), "pending", False),
    "never paid": (sale_story(**UNPAID | {"facts": (replace(FACT, recorded_at=WEEKS_AGO),)}), "never_paid", True),
    "only a refund": (sale_story(sale=None, facts=(), rows=(), reversals=(REFUND,)), "unknown_sale", True),
    "only a link": (sale_story(sale=None, facts=(), rows=(), links=(("in_1", "pi_1"),)), "unknown_sale", True),
    "another product's": (
        sale_story(sale=replace(SALE, credits=None), unsettled_reason="missing_credits", rows=()),
        "no_credits",
        False,
    ),
    "unsettled": (
        sale_story(sale=replace(SALE, user_id=None), unsettled_reason="missing_user", rows=()),
        "unsettled",
        True,
    ),
    "erased": (sale_story(sale=replace(SALE, erased=True), erased=True, rows=()), "erased", False),
    "forgotten": (
        sale_story(sale=replace(SALE, user_id=None, forgotten=True), unsettled_reason="missing_user", rows=()),
        "erased",
        False,
    ),
    "open event": (EventStory(PARKED, (), None, NOW), "parked", True),
    "discarded event": (EventStory(DISCARDED, (), None, NOW), "discarded", False),
    "settled event": (EventStory(replace(PARKED, resolution="settled"), (), sale_story(), NOW), "granted", False),
    "settled event without a sale": (
        EventStory(replace(PARKED, resolution="settled"), (), None, NOW),
        "event_settled",
        False,
    ),
    "paid generation": (generation_story(SPENT), "generation_paid", False),
    "refunded generation": (generation_story(SPENT, GIVEN_BACK), "generation_refunded", False),
    "captured hold": (generation_story(SPENT, captured_at=AGO), "generation_paid", False),
    "released hold": (generation_story(released_at=AGO), "generation_released", False),
    "expired hold": (generation_story(expires_at=AGO), "generation_expired", False),
    "open hold": (generation_story(captured_at=None), "generation_held", False),
    "user with a purchase": (user_story(ROW), "user_fine", False),
    "user without a purchase": (user_story(), "user_without_purchase", True),
    "user with a debt": (user_story(ROW, user=replace(USER, balance=-5, available=-5)), "user_debt", False),
    "user with a parked event": (user_story(ROW, parked=(PARKED,)), "parked", True),
    "user who waits": (user_story(unpaid=(UnpaidSale("pi_1", 100, 1000, "usd", AGO),)), "user_pending", False),
    "user who paid twice": (user_story(replace(ROW, payment_id="pi_2"), ROW), "user_paid_twice", True),
    "user who paid monthly": (
        user_story(replace(ROW, payment_id="pi_2"), replace(ROW, created_at=WEEKS_AGO)),
        "user_fine",
        False,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_story_has_its_verdict(name: str) -> None:
    story, code, needs_attention = TABLE[name]
    found = verdict(story)
    assert (found.code, found.needs_attention) == (code, needs_attention)
    assert found.sentence.endswith((".", "!"))
    assert bool(found.remedy) == needs_attention


MOVED = (replace(ROW, user_id=BERT), replace(ROW, amount=-100, user_id=BERT, type="REFUND", stripe_id="pi_1:merge"))
MOVED_HERE = replace(ROW, type="REFUND", stripe_id="pi_1:merge:2", event_id="action:5", created_at=NOW)
ASSIGNED = Assignment(5, "pi_1", ANNA, None, withdrawn_by=None)
ACTION = Action(5, "assign", "pi_1", "ann", "cli", "ann", "wrong account", None, 100, 100, NOW)
MOVED_SALE = sale_story(rows=(*MOVED, MOVED_HERE), assignments=(ASSIGNED,), actions=(ACTION,))


@pytest.mark.parametrize(
    ("story", "sentence"),
    [
        (sale_story(), "100 credits were granted to anna@example.com on 2026-11-26 11:00 UTC for 10.00 USD."),
        (
            sale_story(user=replace(USER, email=None)),
            f"100 credits were granted to {ANNA} on 2026-11-26 11:00 UTC for 10.00 USD.",
        ),
        (
            MOVED_SALE,
            (
                "100 credits were granted on 2026-11-26 11:00 UTC for 10.00 USD and moved to anna@example.com by an "
                "operator on 2026-11-26 12:00 UTC."
            ),
        ),
        (
            sale_story(assignments=(ASSIGNED,), actions=(ACTION,)),
            (
                "100 credits were granted to anna@example.com on 2026-11-26 11:00 UTC for 10.00 USD, assigned by an "
                "operator on 2026-11-26 12:00 UTC."
            ),
        ),
        (
            user_story(*reversed(MOVED)),
            "The user has 100 credits and has never bought any: the payment may be on another account.",
        ),
        (
            user_story(MOVED_HERE),
            (
                "The user has 100 credits, and last received 100 credits on 2026-11-26 12:00 UTC, when the sale "
                "pi_1 was moved to this account; nothing of the user's is parked."
            ),
        ),
    ],
    ids=["granted", "without an address", "moved", "assigned", "moved away", "moved here"],
)
def test_verdict_names_the_present_owner(story: Story, sentence: str) -> None:
    assert verdict(story).sentence == sentence


PAYER = "payer@work.example"


@pytest.mark.parametrize(
    ("story", "note", "needs_attention"),
    [
        (sale_story(), None, False),
        (sale_story(payer_email="Anna@Example.com", is_payer_searched=True), "Paid by Anna@Example.com.", False),
        (sale_story(payer_email=PAYER), f"Paid by {PAYER}; the account's address is anna@example.com.", False),
        (
            sale_story(payer_email=PAYER, is_payer_searched=True),
            f"Paid by {PAYER}; the account's address is anna@example.com.",
            True,
        ),
        (EventStory(replace(PARKED, payer_email=PAYER), (), None, NOW), f"Paid by {PAYER}.", True),
        (
            user_story(parked=(replace(PARKED, payer_email=PAYER),)),
            f"Paid by {PAYER}; the account's address is anna@example.com.",
            True,
        ),
    ],
    ids=["not known", "same", "another", "searched for", "parked", "parked for a user"],
)
def test_payer_is_compared_with_the_account(story: Story, note: str | None, needs_attention: bool) -> None:  # noqa: FBT001
    found = verdict(story)
    assert (found.note, found.needs_attention) == (note, needs_attention)


@pytest.mark.parametrize("reason", ["missing_user", "unknown_user", "ambiguous_customer"])
def test_reply_to_an_unknown_sender_confirms_nothing(reason: str) -> None:
    sale = sale_story(sale=replace(SALE, user_id=None), user=None, rows=(), parked=(replace(PARKED, reason=reason),))
    for story in (sale, EventStory(sale.parked[0], (), sale, NOW)):
        text = reply(verdict(story), story)
        assert "send us the receipt" in text
        assert not any(word in text for word in ("arrived", "10.00", "correcting", "100"))


@pytest.mark.parametrize("story", [MOVED_SALE, user_story(MOVED_HERE)], ids=["sale", "user"])
def test_reply_after_an_assignment_is_an_apology(story: Story) -> None:
    text = reply(verdict(story), story)
    assert "We are sorry" in text
    assert "signed in" not in text
    assert "November" not in text


def test_reply_to_a_user_without_credits_asks_for_the_receipt() -> None:
    story = user_story(ROW, user=replace(USER, balance=0, available=0))
    assert "0 credits at the moment" in reply(verdict(story), story)
    assert "signed in" not in reply(verdict(story), story)


def test_reply_to_another_payer_asks_for_the_account() -> None:
    story = sale_story(payer_email=PAYER, is_payer_searched=True)
    assert "e-mail address of the account that should have them" in reply(verdict(story), story)


@pytest.mark.parametrize("name", TABLE)
def test_reply_names_no_id_and_no_internal_word(name: str) -> None:
    story = TABLE[name][0]
    text = reply(verdict(story), story)
    words = ("pi_", "evt_", "re_", ANNA, BERT, "parked", "ledger", "webhook", "Stripe", "settle", "None", "{", "@")
    assert [word for word in words if word in text] == []
    assert len(text) < 600


@pytest.mark.parametrize("reason", REMEDIES)
def test_parked_verdict_has_the_remedy_of_its_reason(reason: str) -> None:
    found = verdict(EventStory(replace(PARKED, reason=reason), (), None, NOW))
    assert found.remedy == REMEDIES[reason].replace("EVENT", "evt_1")


@pytest.mark.parametrize(
    ("reversals", "formula", "target"),
    [
        ((), "100 - 0 = 100", 100),
        ((REFUND,), "100 - floor(100 * 550 / 1000) = 45", 45),
        ((REFUND, replace(REFUND, money_amount=600)), "100 - floor(100 * 1000 / 1000) = 0", 0),
        ((replace(REFUND, currency="eur"),), "100 - floor(100 * 1000 / 1000) = 0", 0),
        ((replace(REFUND, money_amount=9),), "100 - floor(100 * 9 / 1000) = 100", 100),
    ],
)
def test_settlement_shows_its_numbers(reversals: tuple[Reversal, ...], formula: str, target: int) -> None:
    result = settlement(sale_story(reversals=reversals))
    assert result
    assert (result.formula, result.target) == (formula, target)


def test_highest_version_counts_for_each_value() -> None:
    """A PaymentIntent without a user leaves the user to the session."""
    session, intent = FACT, replace(FACT, version=3, user_id=None, user_exists=False, credits=90)
    story = sale_story(sale=replace(SALE, credits=90), facts=(intent, session))
    assert [counting_values(story, each) for each in story.facts] == [["credits", "money"], ["user"]]


def test_user_who_exists_counts_before_one_who_does_not() -> None:
    session, intent = FACT, replace(FACT, version=3, user_id=BERT, user_exists=False)
    assert counting_values(sale_story(facts=(intent, session)), session) == ["user"]


def test_assignment_counts_before_the_facts() -> None:
    """The latest one that is not withdrawn, for each value."""
    ended, older, latest = (
        Assignment(7, "pi_1", BERT, 70, withdrawn_by=8),
        Assignment(5, "pi_1", ANNA, 50, withdrawn_by=None),
        Assignment(6, "pi_1", ANNA, None, withdrawn_by=None),
    )
    story = sale_story(assignments=(ended, latest, older))
    assert [counting_assignment(story, each) for each in story.assignments] == [[], ["user"], ["credits"]]
    assert counting_values(story, FACT) == ["money"]
