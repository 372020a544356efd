"""The sources of one account: Stripe's lists by creation, the events of the window, and open objects of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from webhook.events.fields import JSONObject
from webhook.events.interpret import HANDLED_EVENTS
from webhook.events.sales import uses_manual_capture
from webhook.reconcile.account import AccountReader
from webhook.reconcile.pages import Page, Source
from webhook.stripe_api.kinds import (
    DISPUTES,
    INVOICE_PAYMENT,
    INVOICES,
    KIND_BY_NAME,
    KINDS,
    PAYMENT_INTENTS,
    REFUNDS,
    SESSIONS,
    Kind,
    is_object,
)

EVENT_RETENTION = timedelta(days=30)
"""https://docs.stripe.com/api/events/list."""
_EVENT_TYPES = [each for each in HANDLED_EVENTS if each != "charge.refunded"]
"""The events to list. Refunds are listed themselves."""


@dataclass(frozen=True)
class Window:
    """The time that a run covers, from ``since`` to before ``until``, both in seconds since 1970."""

    since: int
    until: int


@dataclass(frozen=True)
class AccountSources:
    """All sources of one account."""

    reader: AccountReader
    window: Window
    open_ids: Iterable[str] = field(default=(), repr=False)
    """Unpaid sales and open disputes that the ledger knows."""

    def sources(self) -> list[Source]:
        """Return the sources that can be read at the same time."""
        since, until = self.window.since, self.window.until
        return [
            *(self._list_source(kind, older=older) for kind in KINDS for older in (False, True)),
            Source(self._title("events"), "Events: Read", self._events, self._first_event(), until),
            Source(
                self._title("open objects"), f"{SESSIONS.permission}, {DISPUTES.permission}", self._open, since, until
            ),
        ]

    def invoices_of(self, reversals_without_sale: Callable[[], Sequence[str]]) -> Source:
        """Return the source of the invoices that were paid by reversed payments without a known sale.

        To be read after all others, which may record the sale. An invoice lists its payments, but it may have been
        created long before its refund.
        """
        title = self._title("invoices of refunds")

        def pages() -> Iterator[Page]:
            for payment_id in reversals_without_sale():
                page = self.reader.page(title, self.reader.invoice_payments(payment_id), in_window=True)
                yield replace(page, objects=[replace(each, requires_known_sale=True) for each in page.objects])

        return Source(title, INVOICES.permission, pages, self.window.since, self.window.until)

    def _list_source(self, kind: Kind, *, older: bool) -> Source:
        """Return the list of objects created in the window, or, if ``older``, in the look-back time before it."""
        since, until = self.window.since, self.window.until
        if older:
            since, until = since - int(kind.look_back.total_seconds()), since
        title = self._title(f"older {kind.title}" if older else kind.title)
        expand = kind.expand_parameter(older=older)
        return Source(title, kind.permission, lambda: self._list(title, kind.path, expand, since, until), since, until)

    def _title(self, title: str) -> str:
        return f"{title} of {self.reader.account}" if self.reader.account else title

    def _list(self, title: str, path: str, expand: list[str], since: int, until: int) -> Iterator[Page]:
        for objects in self.reader.stripe.created(self.reader.account, path, since, until, expand=expand):
            yield self.reader.page(title, objects, _oldest_creation(objects))

    def _first_event(self) -> int:
        first_kept = int((datetime.now(UTC) - EVENT_RETENTION).timestamp())
        return min(max(self.window.since, first_kept), self.window.until)

    def _events(self) -> Iterator[Page]:
        """Yield the current state of older objects that have events in the window."""
        title = self._title("events")
        seen: set[str] = set()
        since, until = self._first_event(), self.window.until
        for events in self.reader.stripe.created(self.reader.account, "/v1/events", since, until, types=_EVENT_TYPES):
            older = [source for source in map(_object_of, events) if source and self._is_missed_by_lists(source)]
            unseen = {source["id"]: source for source in older if source["id"] not in seen}
            seen |= unseen.keys()
            current = [each for source in unseen.values() for each in self._current_state(source)]
            invalid: list[Any] = [_content_of(event) for event in events if not _object_of(event)]
            yield self.reader.page(title, current + invalid, _oldest_creation(events), in_window=True)

    def _is_missed_by_lists(self, source: JSONObject) -> bool:
        """Whether the lists do not show that this object, which has an event, changed in the window."""
        kind = KIND_BY_NAME.get(str(source.get("object")))
        created = source.get("created")
        if kind in (REFUNDS, DISPUTES, INVOICES) and isinstance(created, int):
            return created < self.window.since - kind.look_back.total_seconds()
        return not isinstance(created, int) or created < self.window.since

    def _current_state(self, source: JSONObject) -> list[JSONObject]:
        kind = KIND_BY_NAME.get(str(source.get("object")))
        if kind is None:
            # An invoice payment never names another payment. The refunds of a charge are listed themselves.
            return [source] if source.get("object") == INVOICE_PAYMENT else []
        if kind is PAYMENT_INTENTS and uses_manual_capture(source):
            # The capture paid the session, which names the credits and may be older than the window.
            return [*self.reader.get(kind, source["id"]), *self.reader.session_and_payment(source["id"])]
        return self.reader.get(kind, source["id"])

    def _open(self) -> Iterator[Page]:
        """Yield the current state of the objects that the ledger knows as open."""
        title = self._title("open objects")
        for open_id in self.open_ids:
            if open_id.startswith("pi_"):
                objects = self.reader.session_and_payment(open_id)
            else:
                objects = self.reader.get(SESSIONS if open_id.startswith("cs_") else DISPUTES, open_id)
            yield self.reader.page(title, objects, in_window=True)


def _object_of(event: Any) -> JSONObject | None:
    match event:
        case {"data": {"object": dict(source)}} if is_object(source):
            return source
        case _:
            return None


def _content_of(event: Any) -> Any:
    """Return the event's content, valid or not, else the event itself."""
    match event:
        case {"data": {"object": dict(source)}}:
            return source
        case _:
            return event


def _oldest_creation(objects: list[Any]) -> int | None:
    """Return when the oldest object of a page was created. It is the last one."""
    match objects:
        case [*_, {"created": int(at)}]:
            return at
        case _:
            return None
