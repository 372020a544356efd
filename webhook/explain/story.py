"""The stories of sales, users and parked events, read from the database by named queries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webhook.events.sales import user_id_of
from webhook.explain.records import (
    Action,
    Assignment,
    Claim,
    Entry,
    Fact,
    Hold,
    MergedSale,
    ParkedEvent,
    Purchase,
    Reversal,
    Rows,
    UnpaidSale,
    record,
    records,
)
from webhook.explain.reported import Reported, of_merged_sale, reported

PAGE_SIZE = 100
"""Ledger rows of a user's page."""


@dataclass(frozen=True)
class User:
    """An account with its credits."""

    id: str
    email: str | None
    balance: int
    available: int
    """The balance less the open holds. Below 0 after a refund of credits that were spent."""
    created_at: datetime

    @property
    def held(self) -> int:
        """Credits in open holds."""
        return self.balance - self.available


@dataclass(frozen=True)
class SaleStory:
    """All that is known about a sale. ``payment_id`` is the one that was asked for, ``payment_ids`` are all of them."""

    payment_id: str
    payment_ids: tuple[str, ...]
    sale: MergedSale | None
    """``None`` if only links, reversals, ledger rows or parked events are known."""
    unsettled_reason: str | None
    """Why the sale cannot be settled, as parked events name it."""
    facts: tuple[Fact, ...]
    links: tuple[tuple[str, str], ...]
    """Pairs of an invoice and one of its payments."""
    assignments: tuple[Assignment, ...]
    """Assignments, the latest first. They count before all facts."""
    claims: tuple[Claim, ...]
    reversals: tuple[Reversal, ...]
    rows: tuple[Entry, ...]
    parked: tuple[ParkedEvent, ...]
    actions: tuple[Action, ...]
    user: User | None
    holds: tuple[Hold, ...]
    """Open holds of the user, at most 100."""
    similar: tuple[Purchase, ...]
    """Purchases of the same credits for the same money by the same user within a day, none of them refunded."""
    erased: bool
    read_at: datetime
    reported: Reported | None = None
    """What the first open parked event of the sale reports."""
    payer_email: str | None = None
    """The payer's e-mail address, if an open parked event or the search at Stripe names it."""
    is_payer_searched: bool = False
    """Whether the search was for the payer."""

    @property
    def assignment(self) -> Assignment | None:
        """The operator's assignment that decides about the user; ``None`` if the facts decide."""
        return next((each for each in self.assignments if each.user_id and each.withdrawn_by is None), None)

    @property
    def price(self) -> tuple[int | None, str | None]:
        """The money of the sale in minor units, and its currency."""
        return (self.sale.money_amount, self.sale.currency) if self.sale else (None, None)


@dataclass(frozen=True)
class Cursor:
    """The oldest row of a page: the next page is older. ``balance`` is the user's before this row, in credits."""

    created_at: datetime
    id: str
    balance: int

    def __str__(self) -> str:
        """Return text that :meth:`parse` reads, for a URL."""
        return f"{self.created_at.isoformat()}_{self.id}_{self.balance}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Return the cursor; ``None`` if the text is none."""
        time, _, rest = text.partition("_")
        row_id, _, balance = rest.partition("_")
        if not (user_id_of(row_id) and re.fullmatch(r"-?[0-9]{1,16}", balance)):
            return None
        try:
            created_at = datetime.fromisoformat(time)
        except ValueError:
            return None
        return cls(created_at, row_id, int(balance)) if created_at.tzinfo else None


@dataclass(frozen=True)
class UserStory:
    """A user, and one page of the ledger rows, the newest first. Other lists have at most 100 entries."""

    user: User
    rows: tuple[Entry, ...]
    balances: tuple[int, ...]
    """The balance after each row, in credits."""
    next: Cursor | None
    """Where the next page begins; ``None`` on the last one."""
    is_first_page: bool
    holds: tuple[Hold, ...]
    parked: tuple[ParkedEvent, ...]
    """Open and discarded parked events that name the user."""
    unpaid: tuple[UnpaidSale, ...]
    actions: tuple[Action, ...]
    read_at: datetime
    reported: Reported | None = None
    """What the latest open parked event of the user reports."""


@dataclass(frozen=True)
class EventStory:
    """A parked event, and the sale that it names, if that is known."""

    event: ParkedEvent
    actions: tuple[Action, ...]
    sale: SaleStory | None
    read_at: datetime
    reported: Reported | None = None
    """What the event's body reports; ``None`` once that is dropped, or if it reports nothing."""


@dataclass(frozen=True)
class GenerationStory:
    """A generation of a user."""

    id: str
    user: User
    entry: Entry | None
    """The ledger row with its cost; ``None`` for a hold that was not captured."""
    refund: Entry | None
    """The ledger row that gave its credits back."""
    hold: Hold | None
    read_at: datetime


Story = SaleStory | UserStory | EventStory | GenerationStory


def load_sale(ledger: Rows, payment_id: str) -> SaleStory | None:
    """Return the story of the sale that a payment belongs to, ``None`` if nothing about it is known."""
    [row] = ledger.rows("explain_sale", payment_id=payment_id)
    known = [row[name] for name in ("sale", "facts", "links", "reversals", "rows", "parked")]
    if not any(known) and not row["erased"]:
        return None
    sale = record(MergedSale, row["sale"]) if row["sale"] else None
    rows = records(Entry, row["rows"])
    user, holds = _owner(ledger, sale, rows)
    return SaleStory(
        payment_id=payment_id,
        payment_ids=tuple(sorted(row["payment_ids"])),
        sale=sale,
        unsettled_reason=row["unsettled_reason"],
        facts=records(Fact, row["facts"]),
        links=tuple((invoice_id, paid_by) for invoice_id, paid_by in row["links"]),
        assignments=records(Assignment, row["assignments"]),
        claims=records(Claim, row["claims"]),
        reversals=records(Reversal, row["reversals"]),
        rows=rows,
        parked=records(ParkedEvent, row["parked"]),
        actions=records(Action, row["actions"]),
        user=user,
        holds=holds,
        similar=_similar(ledger, row["payment_ids"], rows),
        erased=bool(row["erased"]),
        read_at=row["read_at"],
        reported=_reported_by(ledger, records(ParkedEvent, row["parked"]), sale),
        payer_email=next((event["payer_email"] for event in row["parked"] if event["resolution"] is None), None),
    )


def load_user(ledger: Rows, user_id: str, before: Cursor | None = None) -> UserStory | None:
    """Return a user with a page of ledger rows, ``None`` if there is no such user."""
    found = ledger.rows("explain_user", user_id=user_id)
    if not found:
        return None
    [row] = found
    user = record(User, row)
    page = ledger.rows(
        "explain_user_rows",
        user_id=user_id,
        before_time=before and before.created_at,
        before_id=before and before.id,
        page_size=PAGE_SIZE + 1,
    )
    rows = records(Entry, page[:PAGE_SIZE])
    balances = _running_balances(rows, before.balance if before else user.balance)
    return UserStory(
        user=user,
        rows=rows,
        balances=balances[:-1],
        next=Cursor(rows[-1].created_at, rows[-1].id, balances[-1]) if len(page) > PAGE_SIZE else None,
        is_first_page=before is None,
        holds=records(Hold, row["holds"]),
        parked=records(ParkedEvent, row["parked"]),
        unpaid=records(UnpaidSale, row["unpaid"]),
        actions=records(Action, row["actions"]),
        read_at=row["read_at"],
        reported=_reported_by(ledger, records(ParkedEvent, row["parked"])),
    )


def load_event(ledger: Rows, event_id: str) -> EventStory | None:
    """Return the story of a parked event, ``None`` if it was never parked."""
    found = ledger.rows("explain_event", event_id=event_id)
    if not found:
        return None
    [row] = found
    event = record(ParkedEvent, row)
    sale = load_sale(ledger, event.payment_id) if event.payment_id else None
    found_in_body = reported(row["body"]) or (of_merged_sale(sale.sale) if sale and sale.sale else None)
    return EventStory(event, records(Action, row["actions"]), sale, row["read_at"], found_in_body)


def load_generation(ledger: Rows, generation_id: str, user_id: str) -> GenerationStory | None:
    """Return the story of a user's generation, ``None`` if there is no such user."""
    found = ledger.rows("explain_user", user_id=user_id)
    if not found:
        return None
    [row] = ledger.rows("explain_generation", id=generation_id)
    return GenerationStory(
        id=generation_id,
        user=record(User, found[0]),
        entry=record(Entry, row["entry"]) if row["entry"] else None,
        refund=record(Entry, row["refund"]) if row["refund"] else None,
        hold=record(Hold, row["hold"]) if row["hold"] else None,
        read_at=found[0]["read_at"],
    )


def _owner(ledger: Rows, sale: MergedSale | None, rows: tuple[Entry, ...]) -> tuple[User | None, tuple[Hold, ...]]:
    """Return the user of a sale and the user's open holds. A sale without facts belongs to the user of its rows."""
    user_id = sale.user_id if sale and sale.user_id else next((row.user_id for row in rows), None)
    found: list[dict[str, Any]] = ledger.rows("explain_user", user_id=user_id) if user_id else []
    return (record(User, found[0]), records(Hold, found[0]["holds"])) if found else (None, ())


def _reported_by(ledger: Rows, events: tuple[ParkedEvent, ...], sale: MergedSale | None = None) -> Reported | None:
    """Return what the first open event reports, else what its sale reports; ``None`` without an open event."""
    first = next((event for event in events if event.resolution is None), None)
    if first is None:
        return None
    found = ledger.rows("explain_event", event_id=first.id)
    return (reported(found[0]["body"]) if found else None) or (of_merged_sale(sale) if sale else None)


def _similar(ledger: Rows, payment_ids: list[str], rows: tuple[Entry, ...]) -> tuple[Purchase, ...]:
    purchase = next((row for row in rows if row.type == "PURCHASE" and row.money_amount), None)
    if purchase is None:
        return ()
    return records(
        Purchase,
        ledger.rows(
            "explain_nearby_purchases",
            user_id=purchase.user_id,
            at=purchase.created_at,
            amount=purchase.amount,
            money_amount=purchase.money_amount,
            currency=purchase.currency,
            payment_ids=payment_ids,
        ),
    )


def _running_balances(rows: tuple[Entry, ...], balance: int) -> tuple[int, ...]:
    """Return the balance after each row, and the one before the last row."""
    balances = [balance]
    for row in rows:
        balances.append(balances[-1] - row.amount)
    return tuple(balances)
