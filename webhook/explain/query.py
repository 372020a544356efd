"""What a search is for: an id, an email address, a number on a receipt, or a card with amount and date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from webhook.events.sales import user_id_of

_ID = re.compile(r"[a-z]+_[A-Za-z0-9_]{1,250}")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_INVOICE_NUMBER = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*-[0-9]{3,}")
_LAST4 = re.compile(r"[0-9]{4}")
_AMOUNT = re.compile(r"[^\w\s.,-]?([0-9]{1,9}(?:[.,][0-9]{1,3})?)[^\w\s.,-]?([A-Za-z]{3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Query:
    """A search. Only the fields that its text contains are set."""

    text: str
    id: str | None = None
    """An id of Stripe, such as ``pi_…``."""
    uuid: str | None = None
    email: str | None = None
    number: str | None = None
    """The number of an invoice or receipt, such as ``2468-1357``."""
    last4: str | None = None
    """The last digits of a card."""
    amount: Decimal | None = None
    """In the main unit, such as 10.00 dollars."""
    currency: str | None = None
    day: date | None = None
    unread: tuple[str, ...] = ()
    """Words that mean nothing here."""

    @property
    def prefix(self) -> str:
        """What the id begins with, such as ``pi``; "" without an id."""
        return self.id.partition("_")[0] if self.id else ""


def read_query(text: str, now: datetime | None = None) -> Query:
    """Return what the words of ``text`` mean. Weekdays are the last ones before ``now``, in UTC."""
    words = text.encode("utf-8", "replace").decode().replace("\x00", " ").split()
    today = (now or datetime.now(UTC)).date()
    fields: dict[str, object] = {}
    unread, text_words = [], []
    for word in words:
        bare = _bare(word)
        found = _read_word(bare, fields, today)
        fields |= found
        text_words.append(bare if found else word)
        if not found:
            unread.append(word)
    return Query(" ".join(text_words), unread=tuple(unread), **fields)  # type: ignore[arg-type]


def _bare(word: str) -> str:
    """Return a word without the brackets, quotes and full stop of the sentence that it was copied from."""
    return word.strip("<>()[]\"'").removeprefix("mailto:").rstrip(".,;:!?<>()[]\"'")


def _read_word(word: str, known: dict[str, object], today: date) -> dict[str, object]:
    """Return the fields that a word sets, none if it cannot be read. Each field is set once."""
    if found := _read_name(word):
        return {} if found.keys() & known.keys() else found
    if "day" not in known and (day := _day(word, today)):
        return {"day": day}
    if "last4" not in known and _LAST4.fullmatch(word):
        return {"last4": word}
    if "currency" not in known and re.fullmatch(r"[A-Za-z]{3}", word):
        return {"currency": word.lower()}
    if "amount" not in known and (amount := _AMOUNT.fullmatch(word)):
        currency = {"currency": amount[2].lower()} if amount[2] else {}
        return {"amount": Decimal(amount[1].replace(",", "."))} | currency
    return {}


def _read_name(word: str) -> dict[str, object]:
    """Return the field of an id, an address or a number; a ledger row's ``re_…:2`` is that of ``re_…``."""
    object_id = word.partition(":")[0]
    if _ID.fullmatch(object_id):
        return {"id": object_id}
    if user_id_of(word):
        return {"uuid": word.lower()}
    if _EMAIL.fullmatch(word):
        return {"email": word}
    if _INVOICE_NUMBER.fullmatch(word) and not _DATE.fullmatch(word):
        return {"number": word}
    return {}


def _day(word: str, today: date) -> date | None:
    name = word.lower()
    if name in ("today", "yesterday"):
        return today - timedelta(days=name == "yesterday")
    if name in _WEEKDAYS:
        return today - timedelta(days=(today.weekday() - _WEEKDAYS.index(name)) % 7)
    try:
        return date.fromisoformat(word) if _DATE.fullmatch(word) else None
    except ValueError:
        return None
