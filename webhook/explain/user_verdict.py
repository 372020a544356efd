"""The verdict on a user."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from webhook.explain.outcome import Verdict, paid_by, parked
from webhook.explain.records import Entry
from webhook.explain.story import UserStory
from webhook.explain.wording import counted, moment


def of_user(story: UserStory) -> Verdict:
    """Return the verdict on a user, from the first page of the ledger rows."""
    user = story.user
    owned = counted(user.balance, "credit")
    waiting = [event for event in story.parked if event.resolution is None]
    purchases = purchases_of(story.rows)
    if waiting:
        found = parked(waiting[0], is_granted=False, reported=story.reported)
        return replace(found, note=paid_by(waiting[0].payer_email, user))
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
            remedy="search for the payment: its id, or the payer's e-mail address with --stripe",
        )
    return Verdict("user_fine", f"The user has {owned}{_latest(purchases)}; nothing of the user's is parked.")


def purchases_of(rows: tuple[Entry, ...]) -> list[Entry]:
    """Return the rows by which the user got the credits of a sale, the newest first.

    A sale that was moved to another account is not among them. One that was moved here has a correction as its row.
    """
    kept: dict[str | None, int] = defaultdict(int)
    for row in rows:
        if row.type == "PURCHASE" or is_correction(row):
            kept[row.payment_id] += row.amount
    got = [row for row in rows if row.amount > 0 and (row.type == "PURCHASE" or is_correction(row))]
    oldest = {row.payment_id: row for row in got if kept[row.payment_id] > 0}  # The last one of a sale counts.
    return [row for row in got if oldest.get(row.payment_id) is row]


def is_correction(row: Entry) -> bool:
    """Return whether a row changes the user or the credits of a sale: its id is a payment's with a suffix."""
    return bool(row.payment_id and row.stripe_id and row.stripe_id.startswith(f"{row.payment_id}:"))


def _latest(purchases: list[Entry]) -> str:
    if not purchases:
        return ""
    latest = purchases[0]
    number, at = counted(latest.amount, "credit"), moment(latest.created_at)
    if is_correction(latest):
        return f", and last received {number} on {at}, when the sale {latest.payment_id} was moved to this account"
    return f", and last bought {number} on {at} ({latest.stripe_id})"


def _equal_purchases(rows: tuple[Entry, ...]) -> tuple[Entry, Entry] | None:
    """Return two purchases of the same for the same money within a day, the older first. None of them is refunded."""
    refunded = {row.payment_id for row in rows if row.type == "REFUND"}
    paid = [row for row in rows if row.type == "PURCHASE" and row.money_amount and row.payment_id not in refunded]
    for newer, older in pairwise(paid):
        same = (newer.amount, newer.money_amount, newer.currency) == (older.amount, older.money_amount, older.currency)
        if same and newer.created_at - older.created_at <= timedelta(days=1):
            return older, newer
    return None
