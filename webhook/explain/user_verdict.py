"""The verdict on a user."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from webhook.explain.outcome import Verdict, parked
from webhook.explain.records import Entry
from webhook.explain.story import UserStory
from webhook.explain.wording import counted, moment


def of_user(story: UserStory) -> Verdict:
    """Return the verdict on a user, from the first page of the ledger rows."""
    user = story.user
    owned = counted(user.balance, "credit")
    waiting = [event for event in story.parked if event.resolution is None]
    purchases = [row for row in story.rows if row.type == "PURCHASE"]
    if waiting:
        return parked(waiting[0], is_granted=False, reported=story.reported)
    if story.unpaid:
        since = max(sale.recorded_at for sale in story.unpaid)
        return Verdict(
            "user_pending",
            f"The user has {owned}, and a payment with a delayed method that is pending since {moment(since)}.",
        )
    if twice := _equal_purchases(story.rows):
        first, second = twice
        return Verdict(
            "user_paid_twice",
            f"The user has {owned}, and bought the same with {first.payment_id} and {second.payment_id} within a "
            "day: perhaps paid twice by mistake.",
            needs_attention=True,
            remedy="ask the user; a refund of one payment at Stripe takes its credits back",
        )
    if user.available < 0:
        return Verdict("user_debt", f"The user owes {counted(-user.available, 'credit')}: refunds took spent credits.")
    if not purchases and story.next is None and story.is_first_page:
        return Verdict(
            "user_without_purchase",
            f"The user has {owned} and has never bought any: the payment may be on another account.",
            needs_attention=True,
            remedy="search for the payment: its id, or the payer's email address with --stripe",
        )
    return Verdict("user_fine", f"The user has {owned}{_latest(purchases)}; nothing of the user's is parked.")


def _latest(purchases: list[Entry]) -> str:
    if not purchases:
        return ""
    latest = purchases[0]
    return f", and last bought {counted(latest.amount, 'credit')} on {moment(latest.created_at)} ({latest.stripe_id})"


def _equal_purchases(rows: tuple[Entry, ...]) -> tuple[Entry, Entry] | None:
    """Return two purchases of the same for the same money within a day, the older first. None of them is refunded."""
    refunded = {row.payment_id for row in rows if row.type == "REFUND"}
    paid = [row for row in rows if row.type == "PURCHASE" and row.money_amount and row.payment_id not in refunded]
    for newer, older in pairwise(paid):
        same = (newer.amount, newer.money_amount, newer.currency) == (older.amount, older.money_amount, older.currency)
        if same and newer.created_at - older.created_at <= timedelta(days=1):
            return older, newer
    return None
