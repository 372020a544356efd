"""Candidates: several results of a search, compared by account, payer, amount, date and state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from webhook.explain.records import Rows
from webhook.explain.reported import Reported
from webhook.explain.story import SaleStory, load_event, load_sale, load_user

MOST = 20
"""Candidates that are compared."""


@dataclass(frozen=True)
class Candidate:
    """A payment, a parked event without one, or else a user. ``amount`` is in minor units of ``currency``."""

    payment_id: str | None
    user_id: str | None = None
    email: str | None = None
    """The payer's address at Stripe, else that of the user."""
    amount: int | None = None
    currency: str | None = None
    at: datetime | None = None
    state: str = ""
    """Such as ``granted`` here, or ``succeeded`` at Stripe."""
    is_known: bool = True
    """Whether the database knows it."""
    object_id: str | None = None
    """The object at Stripe that was found, if it is not the payment itself."""
    event_id: str | None = None
    """The parked event, if one was found."""


def sales(ledger: Rows, payment_ids: Iterable[str]) -> list[Candidate]:
    """Return each sale once, at most :data:`MOST`, though it may have several payments."""
    found: list[Candidate] = []
    seen: set[str] = set()
    for payment_id in payment_ids:
        if payment_id in seen or len(found) == MOST:
            continue
        story = load_sale(ledger, payment_id)
        if story:
            seen.update(story.payment_ids)
            found.append(of_sale(story))
    return found


def events(ledger: Rows, event_ids: Sequence[str]) -> list[Candidate]:
    """Return parked events, one for each payment, at most :data:`MOST`."""
    found: dict[str, Candidate] = {}
    for story in filter(None, (load_event(ledger, event_id) for event_id in event_ids[:MOST])):
        event, known = story.event, of_sale(story.sale) if story.sale else Candidate(None, at=story.event.parked_at)
        known = _with_reported(known, story.reported)
        state = f"parked as {event.reason}" if event.resolution is None else str(event.resolution)
        candidate = replace(known, email=event.payer_email or known.email, state=state, event_id=event.id)
        found.setdefault(event.payment_id or event.id, candidate)
    return list(found.values())


def users(ledger: Rows, user_ids: Sequence[str]) -> list[Candidate]:
    """Return the users, at most :data:`MOST`."""
    stories = (load_user(ledger, user_id) for user_id in user_ids[:MOST])
    return [
        Candidate(
            None, story.user.id, story.user.email, at=story.user.created_at, state=f"{story.user.balance} credits"
        )
        for story in stories
        if story
    ]


def of_sale(story: SaleStory) -> Candidate:
    """Return a sale as a candidate."""
    amount, currency = story.price
    return Candidate(
        payment_id=story.payment_id,
        user_id=story.user.id if story.user else story.sale.user_id if story.sale else None,
        email=story.user.email if story.user else None,
        amount=amount,
        currency=currency,
        at=_first_time(story),
        state=_state(story),
    )


def _with_reported(candidate: Candidate, reported: Reported | None) -> Candidate:
    """Return a candidate with the money and time that its parked event reports. They are those of the payment."""
    if reported is None:
        return candidate
    is_priced = candidate.amount is not None or reported.money_amount is None
    amount, currency = (
        (candidate.amount, candidate.currency) if is_priced else (reported.money_amount, reported.currency)
    )
    return replace(candidate, amount=amount, currency=currency, at=reported.at or candidate.at)


def _first_time(story: SaleStory) -> datetime | None:
    times = [
        *(row.created_at for row in story.rows),
        *(fact.recorded_at for fact in story.facts),
        *(event.parked_at for event in story.parked),
    ]
    return min(times, default=None)


def _state(story: SaleStory) -> str:
    if any(event.resolution is None for event in story.parked):
        return "parked"
    if story.rows:
        return "granted" if not story.reversals else "granted, with a refund or dispute"
    return "paid" if story.sale and story.sale.paid else "not paid"
