"""What an operator can do about a verdict: the advice in the console's words, and the links and buttons for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from webhook.events.sales import user_id_of
from webhook.explain.outcome import Verdict
from webhook.explain.records import ParkedEvent, Rows
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, UserStory

_WORDS = (
    (r"run `webhook retry EVENT`", "retry it"),
    (r"run `webhook assign EVENT --user UUID --reason TEXT`", "assign the user"),
    (r"run `webhook assign EVENT --credits N --reason TEXT`", "assign the credits"),
    (r"run `webhook discard EVENT --reason TEXT`", "discard it"),
    (r"reconcile this payment: webhook reconcile \S+", "reconcile this payment"),
    (r"webhook reconcile finds sales whose events never arrived", "Reconcile a payment whose event never arrived"),
    (r"webhook reconcile reads the sale again", "reconcile its payment to read the sale again"),
    (r"webhook reconcile [!-~]+[^;,. ]", "reconcile this payment"),
    (r"webhook adjust gives credits to another user", "An adjustment gives credits to another user"),
    (r" \(--allow-debt, p_allow_debt\)", ""),
    (r"webhook audit", "ask a developer to run `webhook audit`"),
    (r"run webhook explain with the id of the right one", "open the right one"),
    (r"search with the payment's id, or with --stripe", "search with the payment's id, or at Stripe"),
    (r"at Stripe with --stripe", "at Stripe"),
    (r"or the payer's e-mail address with --stripe", "or the payer's e-mail address at Stripe"),
)
_USER_REASONS = ("missing_user", "ambiguous_customer", "unknown_user")
_CREDITS_REASONS = ("missing_credits", "invalid_credits")
_RECONCILED = ("unknown_sale", "never_paid", "unsettled", "inconsistent", "not_known")
"""The verdicts on a sale that reading its objects at Stripe may change."""
_MOST_ACCOUNTS = 5
_PAYLOAD_KEPT = timedelta(days=30)
"""How long a discarded event can be put back on the list."""


@dataclass(frozen=True)
class Account:
    """An account that may belong to the payer of a parked event."""

    user_id: str
    email: str | None


@dataclass(frozen=True)
class Step:
    """One thing that can be done: a button that does it at once, or a link to its form."""

    kind: Literal["retry", "assign", "withdraw", "discard", "reconcile", "search at Stripe", "adjust"]
    subject: str
    """The event, payment, user or search."""
    user: Account | None = None
    """The user to assign."""
    what: str = ""
    """What to assign: ``user`` or ``credits``."""


def in_words(advice: str, event_id: str | None = None, *, has_stripe: bool = False) -> str:
    """Return the advice of a command with the names of the console's buttons in place of commands.

    With ``has_stripe`` the console has a key, which the advice need not ask for.
    """
    text = advice.replace(event_id, "EVENT") if event_id else advice
    text = text.replace(" with STRIPE_API_KEY set", "") if has_stripe else text
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text.replace("EVENT", event_id) if event_id else text


def worded(verdict: Verdict, event_id: str | None = None, *, has_stripe: bool = False) -> Verdict:
    """Return the verdict with its remedy in the console's words."""
    return replace(verdict, remedy=verdict.remedy and in_words(verdict.remedy, event_id, has_stripe=has_stripe))


def steps(verdict: Verdict, story: Story, ledger: Rows) -> list[Step]:
    """Return what can be done about the story, the most likely first; raises :class:`LedgerUnavailableError`."""
    match story:
        case SaleStory() | EventStory():
            return list(_steps_of_sale(verdict, story, ledger))
        case UserStory():
            return list(_steps_of_user(verdict, story))
        case GenerationStory():
            return [Step("adjust", story.user.id)]


def steps_of_event(event: ParkedEvent, ledger: Rows) -> list[Step]:
    """Return what can be done about a parked event; raises :class:`LedgerUnavailableError`."""
    if event.resolution == "settled":
        return []
    if event.resolution == "discarded" and event.resolved_at and datetime.now(UTC) - event.resolved_at > _PAYLOAD_KEPT:
        return [Step("reconcile", event.payment_id)] if event.payment_id else []
    if event.resolution == "discarded":
        return [Step("retry", event.id)]
    retry, assignments = Step("retry", event.id), list(_assignments(event, ledger))
    first = [retry, *assignments] if _can_settle(event, ledger) else [*assignments, retry]
    return [*first, Step("discard", event.id)]


def accounts_of(email: str | None, ledger: Rows) -> list[Account]:
    """Return the accounts with an email address, at most 5."""
    if not email:
        return []
    [row] = ledger.rows("explain_find_email", email=email)
    found = [ledger.rows("explain_user", user_id=user_id) for user_id in row["user_ids"][:_MOST_ACCOUNTS]]
    return [Account(user["id"], user["email"]) for [user] in filter(None, found)]


def _steps_of_sale(verdict: Verdict, story: SaleStory | EventStory, ledger: Rows) -> Iterator[Step]:
    events = story.parked if isinstance(story, SaleStory) else (story.event,)
    for event in events:
        if event.resolution != "settled":
            yield from steps_of_event(event, ledger)
    sale = story if isinstance(story, SaleStory) else story.sale
    if sale is None:
        return
    if verdict.code in _RECONCILED:
        yield Step("reconcile", sale.payment_id)
    if sale.sale and not sale.erased and not any(event.resolution is None for event in events):
        yield Step("assign", sale.payment_id)
    if any(each.withdrawn_by is None for each in sale.assignments):
        yield Step("withdraw", sale.payment_id)


def _steps_of_user(verdict: Verdict, story: UserStory) -> Iterator[Step]:
    if verdict.code == "user_without_purchase" and story.user.email:
        yield Step("search at Stripe", story.user.email)
    yield Step("adjust", story.user.id)


def _can_settle(event: ParkedEvent, ledger: Rows) -> bool:
    """Return whether a retry may settle the event without a correction: the user may have signed up meanwhile."""
    if event.reason == "unknown_user":
        user_id = user_id_of(event.user_reference)
        return user_id is not None and bool(ledger.rows("explain_user", user_id=user_id))
    return event.reason not in (*_USER_REASONS, *_CREDITS_REASONS)


def _assignments(event: ParkedEvent, ledger: Rows) -> Iterator[Step]:
    if event.reason in _USER_REASONS:
        yield from (Step("assign", event.id, each, "user") for each in accounts_of(event.payer_email, ledger))
        yield Step("assign", event.id, what="user")
    elif event.reason in _CREDITS_REASONS:
        yield Step("assign", event.id, what="credits")
