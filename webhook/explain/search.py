"""Finds what a search is for in the database. Each query uses an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from webhook.explain import candidates
from webhook.explain.candidates import Candidate
from webhook.explain.query import Query, read_query
from webhook.explain.records import Rows

IDS = "payments, invoices, sessions, refunds, disputes, subscriptions, customers and parked events"


@dataclass(frozen=True)
class Found:
    """The result of a search in the database."""

    query: Query
    kind: Literal["user", "sale", "parked event", "candidates", "nothing"]
    id: str | None = None
    """The user, payment or parked event."""
    generation_id: str | None = None
    """The generation that led to the user."""
    candidates: tuple[Candidate, ...] = ()
    searched: tuple[str, ...] = ()
    """Where it was looked for, for people."""


def find(ledger: Rows, text: str) -> Found:
    """Return what the database knows; raises :class:`LedgerUnavailableError`."""
    query = read_query(text)
    if query.id:
        return _find_id(ledger, query, query.id)
    if query.uuid:
        return _find_uuid(ledger, query, query.uuid)
    if query.email:
        return _find_email(ledger, query, query.email)
    return Found(query, "nothing")


def _find_id(ledger: Rows, query: Query, object_id: str) -> Found:
    searched = (f"the database: {IDS} with this id",)
    [row] = ledger.rows("explain_find", id=object_id)
    payment_ids, user_ids, event_ids = row["payment_ids"], row["user_ids"], row["event_ids"]
    if object_id in payment_ids:
        return Found(query, "sale", object_id, searched=searched)
    if object_id in event_ids:
        return Found(query, "parked event", object_id, searched=searched)
    if event_ids:
        named = (*candidates.events(ledger, event_ids), *candidates.sales(ledger, payment_ids))
        return _found(query, named, searched)
    if len(user_ids) == 1 and not payment_ids:
        return Found(query, "user", user_ids[0], searched=searched)
    found = (*candidates.sales(ledger, payment_ids), *candidates.users(ledger, user_ids))
    return _found(query, found, searched)


def _find_uuid(ledger: Rows, query: Query, uuid: str) -> Found:
    searched = ("the database: users, ledger rows, generations and holds with this id",)
    owners = ledger.rows("explain_find_uuid", id=uuid)
    for owner in owners:
        if owner["payment_id"]:
            return Found(query, "sale", owner["payment_id"], searched=searched)
        generation_id = uuid if owner["kind"] in ("generation", "hold") else None
        return Found(query, "user", owner["user_id"], generation_id, searched=searched)
    return Found(query, "nothing", searched=searched)


def _find_email(ledger: Rows, query: Query, email: str) -> Found:
    searched = ("the database: users and payers of parked events with this e-mail address",)
    [row] = ledger.rows("explain_find_email", email=email)
    waiting = candidates.events(ledger, row["event_ids"])
    if len(waiting) == 1 and len(row["user_ids"]) <= 1:
        return _found(query, tuple(waiting), searched)  # It needs attention, the account may be another one.
    return _found(query, (*waiting, *candidates.users(ledger, row["user_ids"])), searched)


def _found(query: Query, found: tuple[Candidate, ...], searched: tuple[str, ...]) -> Found:
    match found:
        case ():
            return Found(query, "nothing", searched=searched)
        case (Candidate(event_id=str(event_id)),):
            return Found(query, "parked event", event_id, searched=searched)
        case (Candidate(payment_id=str(payment_id)),):
            return Found(query, "sale", payment_id, searched=searched)
        case (Candidate(user_id=str(user_id)),):
            return Found(query, "user", user_id, searched=searched)
        case _:
            return Found(query, "candidates", candidates=found, searched=searched)
