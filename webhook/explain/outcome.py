"""A verdict, and those on parked and discarded events, which sales and users share."""

from __future__ import annotations

from dataclasses import dataclass

from webhook.explain.records import ParkedEvent
from webhook.explain.reported import Reported
from webhook.explain.story import User
from webhook.explain.wording import moment
from webhook.remedies import remedy


@dataclass(frozen=True)
class Verdict:
    """What happened. ``code`` is for programs and chooses the reply to the customer."""

    code: str
    sentence: str
    needs_attention: bool = False
    remedy: str | None = None
    """What to do, ``None`` if there is nothing to do."""
    note: str | None = None
    """Who paid, and whether the account has another e-mail address; ``None`` if the payer is not known."""


def parked(event: ParkedEvent, *, is_granted: bool, reported: Reported | None = None) -> Verdict:
    """Return the verdict on an open event. ``is_granted``: its sale has a ledger row nevertheless."""
    sentence = f"The event {event.id} is parked as {event.reason} since {moment(event.parked_at)}"
    effect = "the sale itself is in the ledger" if is_granted else "no credits were granted for it yet"
    facts = f" {reported.sentence}" if reported else ""
    return Verdict("parked", f"{sentence}: {effect}.{facts}", needs_attention=True, remedy=remedy(event, event.id))


def paid_by(payer: str | None, user: User | None) -> str | None:
    """Return the note on a payer, ``None`` if the payer is not known."""
    if payer is None:
        return None
    if user is None or is_payer(payer, user):
        return f"Paid by {payer}."
    return f"Paid by {payer}; the account's address is {user.email or 'not known'}."


def is_payer(payer: str, user: User) -> bool:
    """Return whether the account has the payer's e-mail address."""
    return payer.lower() == (user.email or "").lower()


def discarded(event: ParkedEvent) -> Verdict:
    """Return the verdict on an event that an operator discarded."""
    sentence = f"{event.discarded_by} discarded the event {event.id}: {event.discard_reason}. No credits were granted."
    return Verdict("discarded", sentence)
