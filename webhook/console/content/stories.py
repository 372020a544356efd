"""What the templates show of a story of :mod:`webhook.explain`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flask import url_for

from webhook.console.console import Console
from webhook.console.content import cursors
from webhook.console.content.advice import Step, steps, worded
from webhook.console.content.known import names_of
from webhook.explain.counting import SOURCES, counting_assignment, counting_values
from webhook.explain.escapes import printable
from webhook.explain.outcome import Verdict
from webhook.explain.records import Assignment, Claim, Entry, Fact
from webhook.explain.reply import reply
from webhook.explain.settlement import Settlement, settlement
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, UserStory
from webhook.explain.verdict import verdict

MOST_PAYLOAD = 64 * 1024
"""Bytes of a payload that a page shows."""
_MOST_USERS = 5
_ENCODER = json.JSONEncoder(indent=2, ensure_ascii=False)


@dataclass(frozen=True)
class Shown:
    """A story with all that its template needs."""

    kind: str
    """``sale``, ``user``, ``parked event`` or ``generation``."""
    title: str
    plain_title: str
    """With control characters as escapes: the title of a document has no markup."""
    href: str
    """The page's own address."""
    story: Story
    verdict: Verdict
    """In the console's words."""
    reply: str
    steps: list[Step]
    settlement: Settlement | None
    sources: dict[int, str]
    counting_facts: list[list[str]]
    """What counts of each fact of the sale."""
    counting_assignments: list[list[str]]
    next_href: str | None
    """The next page of a user's ledger."""
    formula: str | None
    """The numbers of the settlement."""
    users: dict[str, str]
    """What people call the users of the sale: e-mail addresses by id."""


@dataclass(frozen=True)
class Payload:
    """The body of a parked event as text."""

    text: str
    is_cut: bool
    kibibytes: int = MOST_PAYLOAD // 1024


def shown(console: Console, story: Story) -> Shown:
    """Return what a page shows of a story; raises :class:`LedgerUnavailableError`."""
    kind, title, href = _title(story)
    found = verdict(story)
    sale = story if isinstance(story, SaleStory) else story.sale if isinstance(story, EventStory) else None
    result = settlement(sale) if sale else None
    next_href = None
    if isinstance(story, UserStory) and story.next:
        before = cursors.signed(console, story.user.id, story.next)
        next_href = _address("user", user_id=story.user.id, before=before)
    return Shown(
        kind,
        title,
        printable(title),
        href,
        story,
        worded(found, _event_of(story), has_stripe=console.stripe is not None),
        reply(found, story),
        steps(found, story, console.ledger),
        result,
        SOURCES,
        [counting_values(sale, each) for each in sale.facts] if sale else [],
        [counting_assignment(sale, each) for each in sale.assignments] if sale else [],
        next_href,
        equation(result),
        names_of(_users_of(sale), console.ledger) if sale else {},
    )


def equation(result: Settlement | None) -> str | None:
    """Return the numbers of a settlement with the signs that people write."""
    if result is None:
        return None
    return result.formula.replace("*", "\N{MULTIPLICATION SIGN}").replace("-", "\N{MINUS SIGN}")


def payload_of(text: str | None) -> Payload | None:
    """Return the body of an event, indented and cut at 64 KiB; ``None`` if it is dropped."""
    if text is None:
        return None
    with suppress(ValueError, RecursionError):  # then it is shown as it came
        text = _indented(json.loads(text))
    whole = text.encode("utf-8", "backslashreplace")
    return Payload(whole[:MOST_PAYLOAD].decode("utf-8", "ignore"), len(whole) > MOST_PAYLOAD)


def _indented(document: Any) -> str:
    """Return the beginning of a document as text, slightly longer than a page shows: indents can grow without limit."""
    parts, size = list[str](), 0
    for part in _ENCODER.iterencode(document):
        parts.append(part)
        size += len(part)
        if size > MOST_PAYLOAD:
            break
    return "".join(parts)


def _title(story: Story) -> tuple[str, str, str]:
    match story:
        case SaleStory():
            return "sale", story.payment_id, _address("sale", payment_id=story.payment_id)
        case UserStory():
            return "user", story.user.email or story.user.id, _address("user", user_id=story.user.id)
        case EventStory():
            return "parked event", story.event.id, _address("parked_event", event_id=story.event.id)
        case GenerationStory():
            return "generation", story.id, _address("search", q=story.id)


def _users_of(sale: SaleStory) -> list[str]:
    """Return the first users that the tables of a sale name; each costs a query."""
    tables: tuple[Sequence[Entry | Assignment | Fact | Claim], ...]
    tables = (sale.rows, sale.assignments, sale.facts, sale.claims)
    named = [each.user_id for table in tables for each in table if each.user_id]
    return list(dict.fromkeys(named))[:_MOST_USERS]


def _address(endpoint: str, **values: Any) -> str:
    return url_for(f"console.{endpoint}", **values)


def _event_of(story: Story) -> str | None:
    """Return the event whose id the remedy of a verdict names."""
    if isinstance(story, EventStory):
        return story.event.id
    parked = story.parked if isinstance(story, SaleStory | UserStory) else ()
    return next((event.id for event in parked if event.resolution is None), None)
