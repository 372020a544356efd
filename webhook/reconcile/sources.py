"""Where reconciliation looks: Stripe's lists by creation, the events of the window, and what the ledger knows as open.

Each source reads on a thread of its own, a page at a time, into one bounded queue: memory stays flat, and the one who
takes from the queue sets the pace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from queue import Queue
from typing import Any

from webhook.events.event import EventScope
from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.interpret import HANDLED_EVENTS
from webhook.events.lookups import Lookup
from webhook.events.sales import is_captured_by_hand
from webhook.reconcile.objects import (
    DISPUTES,
    INVOICE_PAYMENT,
    INVOICE_PAYMENTS,
    INVOICES,
    KINDS,
    PAYMENT_INTENTS,
    REFUNDS,
    SESSIONS,
    Found,
    Kind,
    is_object,
    payments_in,
    read,
)
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.client import StripeUnavailableError

EVENTS_REACH_BACK = timedelta(days=30)
"""https://docs.stripe.com/api/events/list."""
_LISTED_TYPES = [each for each in HANDLED_EVENTS if each != "charge.refunded"]
"""Refunds are listed themselves."""
_BY_NAME = {kind.name: kind for kind in KINDS}
_PAGES_AHEAD = 6
_RIGHTS_FOR_CREDITS = "Prices: Read, Products: Read"
"""What a restricted key needs where credits are not in the metadata, besides the right to the object itself."""


@dataclass(frozen=True)
class Window:
    """From when to when something happened, in seconds since 1970; ``until`` is not in it."""

    since: int
    until: int


class _Unanswerable(Exception):
    """Stripe will never answer what an object makes us resolve, such as for a price that is gone, or what it is itself."""


_NO_OBJECT = _Unanswerable("Stripe's answer holds something that is no object with an id")


@dataclass(frozen=True)
class Failed:
    """An object that could not be read, and why; the others of its list could."""

    id: str
    """As far as it has one, as it may be shown."""
    kind: str
    why: str


@dataclass(frozen=True)
class Page:
    """What a source has found in so many objects, and how far back in time, in seconds, it has come by then."""

    source: str
    found: list[Found]
    objects: int
    reached: int | None = None
    failed: list[Failed] = field(default_factory=list)
    """Objects that Stripe does not tell all of, or that are none."""


@dataclass(frozen=True)
class End:
    """A source has no more, or could not go on."""

    source: str
    trouble: Exception | None = None


@dataclass(frozen=True)
class Source:
    """A place to look at: its title, the right it takes, what yields its pages, and from when to when they go."""

    title: str
    right: str
    pages: Callable[[], Iterator[Page]]
    since: int
    until: int


@dataclass(frozen=True)
class Places:
    """All the places to look at in one account; ``open_ids`` is what the ledger knows as open."""

    reader: StripeReader
    scope: EventScope
    window: Window
    account: str | None
    open_ids: Iterable[str] = field(default=(), repr=False)

    def sources(self) -> list[Source]:
        """Return them all."""
        since, until = self.window.since, self.window.until
        return [
            *(self._list(kind, older=older) for kind in KINDS for older in (False, True)),
            Source(self._title("events"), "Events: Read", self._events, self._first_event(), until),
            Source(self._title("open ones"), f"{SESSIONS.right}, {DISPUTES.right}", self._open, since, until),
        ]

    def _list(self, kind: Kind, *, older: bool) -> Source:
        """Return what was created in the window, or, if ``older``, in the time that is looked back at."""
        since, until = self.window.since, self.window.until
        if older:
            since, until = since - int(kind.look_back.total_seconds()), since
        title = self._title(f"older {kind.title}" if older else kind.title)
        expand = kind.expanded(older=older)
        return Source(title, kind.right, lambda: self._listed(title, kind.path, expand, since, until), since, until)

    def _title(self, what: str) -> str:
        return f"{what} of {self.account}" if self.account else what

    def _listed(self, title: str, path: str, expand: list[str], since: int, until: int) -> Iterator[Page]:
        for objects in self.reader.created(self.account, path, since, until, expand=expand):
            yield self._page(title, objects, _created(objects))

    def _first_event(self) -> int:
        horizon = int((datetime.now(UTC) - EVENTS_REACH_BACK).timestamp())
        return min(max(self.window.since, horizon), self.window.until)

    def _events(self) -> Iterator[Page]:
        """Yield, as they are now, the older objects to which something happened in the window."""
        title = self._title("events")
        seen: set[str] = set()
        since, until = self._first_event(), self.window.until
        for events in self.reader.created(self.account, "/v1/events", since, until, types=_LISTED_TYPES):
            older = [source for source in map(_object_of, events) if source and self._is_missed_by_lists(source)]
            new = {source["id"]: source for source in older if source["id"] not in seen}
            seen |= new.keys()
            now = [each for source in new.values() for each in self._as_it_is_now(source)]
            odd: list[Any] = [_held_by(event) for event in events if not _object_of(event)]
            yield self._page(title, now + odd, _created(events), in_window=True)

    def _is_missed_by_lists(self, source: JSONObject) -> bool:
        """Whether no list tells that something happened in the window to this object, which an event is about."""
        kind = _BY_NAME.get(str(source.get("object")))
        created = source.get("created")
        if kind in (REFUNDS, DISPUTES, INVOICES) and isinstance(created, int):
            return created < self.window.since - kind.look_back.total_seconds()
        return not isinstance(created, int) or created < self.window.since

    def _as_it_is_now(self, source: JSONObject) -> list[JSONObject]:
        kind = _BY_NAME.get(str(source.get("object")))
        if kind is None:
            # Which payment an invoice was paid by never changes; a charge's refunds are listed themselves.
            return [source] if source.get("object") == INVOICE_PAYMENT else []
        if kind is PAYMENT_INTENTS and is_captured_by_hand(source):
            # Its capture is what paid the session that tells of credits, which may be older than the window.
            return [*self._got(kind, source["id"]), *self._session_and_payment(source["id"])]
        return self._got(kind, source["id"])

    def _open(self) -> Iterator[Page]:
        """Yield what the ledger knows as open, as it is now."""
        title = self._title("open ones")
        for open_id in self.open_ids:
            if open_id.startswith("pi_"):
                objects = self._session_and_payment(open_id)
            else:
                objects = self._got(SESSIONS if open_id.startswith("cs_") else DISPUTES, open_id)
            yield self._page(title, objects, in_window=True)

    def invoices_of(self, strange_payments: Callable[[], Sequence[str]]) -> Source:
        """Return what looks for the invoices of payments that were taken back, where no sale of theirs is known.

        To be read last. An invoice lists its payments, but it may have been made long before it was refunded.
        """
        title = self._title("invoices of refunds")

        def pages() -> Iterator[Page]:
            for payment_id in strange_payments():
                found = self._page(title, self._payments_of_invoices(payment_id), in_window=True)
                yield replace(found, found=[replace(each, only_known=True) for each in found.found])

        return Source(title, INVOICES.right, pages, self.window.since, self.window.until)

    def _payments_of_invoices(self, payment_id: str) -> list[JSONObject]:
        payment = {"type": "payment_intent", "payment_intent": payment_id}
        return self._of_payment(self.reader.pages(self.account, INVOICE_PAYMENTS, payment=payment))

    def _of_payment(self, pages: Iterator[list[JSONObject]]) -> list[JSONObject]:
        """Return what is listed of a payment, nothing where this account has no such payment."""
        try:
            return [each for page in pages for each in page]
        except StripeUnavailableError as error:
            if error.names_nothing:
                return []
            raise

    def _session_and_payment(self, payment_id: str) -> list[JSONObject]:
        """Return the session that made a payment, and the payment, which alone tells of a capture by hand."""
        expand = [*SESSIONS.expanded(older=False), "data.payment_intent"]
        every = self.reader.pages(self.account, SESSIONS.path, payment_intent=payment_id, expand=expand)
        sessions = self._of_payment(every)
        payments: list[Any] = [session.get("payment_intent") for session in sessions if is_object(session)]
        return sessions + [payment for payment in payments if is_object(payment)]

    def _got(self, kind: Kind, object_id: str) -> list[JSONObject]:
        """Return the object, or nothing where Stripe has none (any more)."""
        expand = kind.expanded(older=False, within="")
        source = self.reader.get(self.account, kind.path, object_id, expand=expand)
        return [source] if source else []

    def _page(
        self, title: str, objects: list[JSONObject], reached: int | None = None, *, in_window: bool = False
    ) -> Page:
        found: list[Found] = []
        failed: list[Failed] = []
        for source in objects:
            try:
                whole = self._whole(source)
                found += read(whole, self.account, self.scope, self._ask, self.window.since, in_window=in_window)
            except _Unanswerable as error:
                failed.append(_failed(source, str(error)))
        return Page(title, found, len(objects), reached, failed)

    def _ask(self, question: Lookup) -> Any:
        try:
            return self.reader.resolver(self.account)(question)
        except StripeUnavailableError as error:
            if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                raise _Unanswerable(f"{type(question).__name__}: {error}") from error
            # Without its status: it is not the right to the list that lacks.
            raise StripeUnavailableError(str(error.with_permission_hint(_RIGHTS_FOR_CREDITS))) from error

    def _whole(self, source: Any) -> JSONObject:
        """Return the object with all its payments, of which an invoice holds ten."""
        if not is_object(source):
            raise _NO_OBJECT
        whole = self.reader.with_all_payments(self.account, source)
        if not all(map(is_object, payments_in(whole))):
            raise _NO_OBJECT
        return whole


def read_all(sources: Sequence[Source], stopped: threading.Event) -> Iterator[Page | End]:
    """Yield the pages of all sources as they come, and an end for each; stops early once ``stopped`` is set."""
    queue: Queue[Page | End] = Queue(_PAGES_AHEAD)
    for source in sources:
        threading.Thread(target=_read_one, args=(source, queue, stopped), daemon=True).start()
    left = len(sources)
    while left:
        item = queue.get()
        left -= isinstance(item, End)
        yield item


def _read_one(source: Source, queue: Queue[Page | End], stopped: threading.Event) -> None:
    trouble: Exception | None = None
    try:
        for page in source.pages():
            if stopped.is_set():
                return
            queue.put(page)
    except StripeUnavailableError as error:
        trouble = error.with_permission_hint(source.right)
    except Exception as error:  # noqa: BLE001 - told by whoever takes it from the queue
        trouble = error
    queue.put(End(source.title, trouble))


def _failed(source: Any, why: str) -> Failed:
    """Return what an object is told as; what it calls itself may be anything."""
    names = [source.get(field) if isinstance(source, dict) else None for field in ("id", "object")]
    shown = [name if isinstance(name, str) and IDENTIFIER.fullmatch(name) else "?" for name in names]
    return Failed(shown[0], shown[1], why)


def _held_by(event: Any) -> Any:
    """Return what stands in an event where an object should, else the event."""
    match event:
        case {"data": {"object": dict(source)}}:
            return source
        case _:
            return event


def _object_of(event: Any) -> JSONObject | None:
    match event:
        case {"data": {"object": dict(source)}} if is_object(source):
            return source
        case _:
            return None


def _created(objects: list[Any]) -> int | None:
    """Return when the oldest object of a page was created, which is its last."""
    match objects:
        case [*_, {"created": int(at)}]:
            return at
        case _:
            return None
