"""The answer to a search: what was found, the verdict, the story and where it was looked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from webhook.explain import candidates
from webhook.explain.candidates import Candidate
from webhook.explain.outcome import Verdict
from webhook.explain.query import Query
from webhook.explain.records import Rows
from webhook.explain.search import Found, find
from webhook.explain.settlement import settlement
from webhook.explain.story import (
    EventStory,
    GenerationStory,
    SaleStory,
    Story,
    UserStory,
    load_event,
    load_generation,
    load_sale,
    load_user,
)
from webhook.explain.stripe_search import Reader, StripeFindings, search_stripe
from webhook.explain.verdict import verdict

_KINDS = {SaleStory: "sale", UserStory: "user", EventStory: "parked event", GenerationStory: "generation"}


@dataclass(frozen=True)
class Report:
    """The whole answer. ``story`` is ``None`` if nothing or several candidates were found."""

    query: Query
    verdict: Verdict
    story: Story | None = None
    candidates: tuple[Candidate, ...] = ()
    searched: tuple[str, ...] = ()
    dashboard: str | None = None

    def as_json(self) -> str:
        """Return one JSON document in ASCII, without a line break."""
        sale = self.story.sale if isinstance(self.story, EventStory) else self.story
        result = settlement(sale) if isinstance(sale, SaleStory) else None
        document = {
            "query": self.query.text,
            "verdict": asdict(self.verdict),
            "kind": _kind(self.story) if self.story else "candidates" if self.candidates else "nothing",
            "story": self.story and asdict(self.story),
            "settlement": result and asdict(result) | {"formula": result.formula},
            "candidates": [asdict(each) for each in self.candidates],
            "searched": list(self.searched),
            "dashboard": self.dashboard,
        }
        return json.dumps(document, default=_plain).replace("\x7f", "\\u007f")


def answer(ledger: Rows, text: str) -> tuple[Found, Report]:
    """Return what the database knows. Raises :class:`LedgerUnavailableError`."""
    found = find(ledger, text)
    story = _story(ledger, found)
    if story:
        return found, Report(found.query, verdict(story), story, searched=found.searched)
    return found, Report(found.query, _without_story(found), candidates=found.candidates, searched=found.searched)


def full_answer(ledger: Rows, text: str, reader: Reader | None, accounts: Iterable[str | None] = (None,)) -> Report:
    """Return what the database knows, and with a ``reader`` what Stripe knows if the database lacks the payment.

    Raises :class:`LedgerUnavailableError` or :class:`StripeUnavailableError`.
    """
    found, report = answer(ledger, text)
    if reader is None:
        return report
    if found.kind in ("sale", "parked event"):
        return replace(report, searched=(*report.searched, "not Stripe: the database knows the payment"))
    return with_stripe(ledger, report, search_stripe(reader, text, accounts))


def with_stripe(ledger: Rows, report: Report, findings: StripeFindings) -> Report:
    """Return the report with what was found at Stripe, compared with the database."""
    searched = (*report.searched, *(f"Stripe: {each}" for each in findings.searched))
    compared = tuple(_compared(ledger, each) for each in findings.candidates)
    known = (*report.candidates, *compared)
    report = replace(report, searched=searched, candidates=known, dashboard=findings.dashboard)
    if report.story and not (known and report.verdict.code == "user_without_purchase"):
        return report
    if len(known) == 1 and known[0].is_known and known[0].payment_id:
        story = load_sale(ledger, known[0].payment_id)
        return _of_payer(report, story, compared) if story else report
    if len(known) == 1:
        return replace(report, verdict=_unknown(known[0]), story=None)
    return replace(report, verdict=_several(known), story=None) if known else report


def _of_payer(report: Report, story: SaleStory, compared: tuple[Candidate, ...]) -> Report:
    """Return the report on a sale with its payer as Stripe names it."""
    payer = next((each.email for each in compared), None)
    searched = report.query.email is not None and payer is not None
    story = replace(story, payer_email=payer or story.payer_email, is_payer_searched=searched)
    return replace(report, verdict=verdict(story), story=story)


def _story(ledger: Rows, found: Found) -> Story | None:
    match found.kind, found.id:
        case "sale", str(payment_id):
            return load_sale(ledger, payment_id)
        case "user", str(user_id) if found.generation_id:
            return load_generation(ledger, found.generation_id, user_id)
        case "user", str(user_id):
            return load_user(ledger, user_id)
        case "parked event", str(event_id):
            return load_event(ledger, event_id)
    return None


def _compared(ledger: Rows, candidate: Candidate) -> Candidate:
    """Return a candidate from Stripe with the account and state that the database has."""
    story = load_sale(ledger, candidate.payment_id) if candidate.payment_id else None
    if story is None:
        return replace(candidate, state=f"{candidate.state}; not known here")
    known = candidates.of_sale(story)
    return replace(
        candidate, user_id=known.user_id or candidate.user_id, state=f"{candidate.state}; {known.state}", is_known=True
    )


def _without_story(found: Found) -> Verdict:
    if found.candidates:
        return _several(found.candidates)
    query = found.query
    if missing := _missing_parts(query):
        return Verdict(
            "nothing",
            f"{query.text} is not enough to find a payment: {' and '.join(missing)} missing.",
            needs_attention=True,
            remedy="search with the card's last four digits, the amount and the day, such as 4242 10.00 usd tuesday",
        )
    if found.searched:
        return Verdict(
            "nothing", f"Nothing is known about {query.text} here.", needs_attention=True, remedy=_next_search(query)
        )
    return Verdict(
        "nothing",
        f"{query.text} is no id, e-mail address or receipt number that the database could know.",
        needs_attention=True,
        remedy=_next_search(query),
    )


def _missing_parts(query: Query) -> list[str]:
    """Return what a search by card, amount and day lacks; nothing for any other search."""
    if query.id or query.uuid or query.email or query.number:
        return []
    parts = {
        "the last four digits of the card are": query.last4,
        "the amount is": query.amount,
        "the day is": query.day,
    }
    missing = [name for name, value in parts.items() if value is None]
    return missing if len(missing) < len(parts) else []


def _next_search(query: Query) -> str:
    if query.prefix == "cs":
        return "the ledger does not keep the ids of paid sessions: search with the payment's id, or with --stripe"
    if query.prefix in ("pi", "in"):
        return f"search at Stripe with --stripe; if the payment is yours: webhook reconcile {query.id}"
    return "search at Stripe with --stripe"


def _several(found: tuple[Candidate, ...]) -> Verdict:
    return Verdict(
        "candidates",
        f"{len(found)} results: compare account, payer, amount, time and state.",
        needs_attention=True,
        remedy="run webhook explain with the id of the right one",
    )


def _unknown(candidate: Candidate) -> Verdict:
    return Verdict(
        "not_known",
        f"Stripe has the payment {candidate.payment_id}, and it is not known here.",
        needs_attention=True,
        remedy=f"reconcile this payment: webhook reconcile {candidate.payment_id}",
    )


def _kind(story: Story) -> str:
    return _KINDS[type(story)]


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)
