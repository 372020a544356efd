"""``webhook reconcile ID…``: read the named objects with all that belongs to them, and record what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from webhook.errors import ExpectedError
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Ignored, Unresolvable
from webhook.events.fields import JSONObject
from webhook.events.signature import InvalidDeliveryError
from webhook.ledger.ledger import Ledger, ParkedEvent
from webhook.output import silence_notice
from webhook.reconcile.account import AccountReader
from webhook.reconcile.failures import failure_of
from webhook.reconcile.findings import NamedFindings
from webhook.reconcile.named_report import NamedReport
from webhook.reconcile.pages import Page, Source, read_all
from webhook.reconcile.recorder import RETRY_SECONDS, Recorder, retrying
from webhook.reconcile.related import related_objects
from webhook.reconcile.report import Item
from webhook.retry import Retry
from webhook.settings import read_database_url, read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.kinds import EVENTS, KIND_BY_NAME, kind_of

_AT_A_TIME = 8
_PERMISSION = (
    "Checkout Sessions, PaymentIntents, Charges and Refunds, Invoices and Disputes: Read, for evt_ also Events: Read"
)
_UNREAD = ("wrong_mode", "missing_api_key")
"""Parked reasons of events whose facts were not read, so that no other event resolves them."""
_INSTEAD = {
    "sub": "a subscription is many sales: name the invoice (in_…) that is missing",
    "cus": "a customer may have many sales: name the payment (pi_…) or invoice (in_…) that is missing",
    "seti": "a SetupIntent moves no money: name the payment (pi_…)",
    "plink": "a Payment Link has many sales: name the session (cs_…) or payment (pi_…)",
}
_NAMES = "name a cs_, pi_, in_, inpay_, ch_, re_, dp_, du_ or evt_"


class NamedObjectError(ExpectedError):
    """A named object cannot be reconciled. The message contains the remedy."""


def run(names: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Reconcile the named objects and return the exit code.

    Raises :class:`SettingsError` or :class:`LedgerUnavailableError` if it cannot start.
    """
    settings, scope = read_reader_settings(), read_event_scope()
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        report = NamedReport(names, dry_run=dry_run, as_json=as_json)
        reader = StripeReader(settings, silence_notice(settings))
        error = failure_of(NamedObjects(ledger, reader, scope, dry_run, report, list(dict.fromkeys(names))).run)
        reader.stop()
        report.finish(reader.requests, error)
    return report.exit_code


@dataclass(frozen=True)
class NamedObjects:
    """One run over named objects; a ``dry_run`` changes nothing."""

    ledger: Ledger
    stripe: StripeReader
    scope: EventScope
    dry_run: bool
    report: NamedFindings
    names: Sequence[str]
    retry_seconds: float = RETRY_SECONDS
    _notes: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Read all objects, record what is missing, and fill the report.

        Raises :class:`LedgerUnavailableError` if the database stays away. Stripe's errors go to the report.
        """
        sources = [Source(name, _PERMISSION, self._pages_of(name), 0, 1) for name in self.names]
        self.report.begin(sources)
        for first in range(0, len(sources), _AT_A_TIME):
            self._read(sources[first : first + _AT_A_TIME])
        self._report_notes()

    def run_in_turn(self) -> None:
        """Read one object after the other on this thread, record what is missing, and fill the report.

        The first object that cannot be read or recorded ends the run: it raises :class:`NamedObjectError`,
        :class:`StripeUnavailableError` or :class:`LedgerUnavailableError`.
        """
        for name in self.names:
            try:
                pages = list(self._pages_of(name)())
            except StripeUnavailableError as error:
                raise error.with_permission_hint(_PERMISSION) from error
            for page in pages:
                self._recorder.record(page)
                self.report.read(page)
                self._resolve_parked(page)
        self._report_notes()

    @property
    def _recorder(self) -> Recorder:
        return Recorder(self.ledger, self.report, self.dry_run, self.retry_seconds)

    def _report_notes(self) -> None:
        for name, note in self._notes.items():
            self.report.note(name, note)

    def _read(self, sources: Sequence[Source]) -> None:
        recorder = self._recorder
        stopped = threading.Event()
        try:
            for item in read_all(sources, stopped):
                if isinstance(item, Page):
                    recorder.record(item)
                    self.report.read(item)
                    self._resolve_parked(item)
                else:
                    self.report.end(item.source, item.error)
        finally:
            stopped.set()

    def _pages_of(self, name: str) -> Callable[[], Iterator[Page]]:
        def pages() -> Iterator[Page]:
            object_id = self._object_of(name)
            _check(object_id, self.scope)
            objects, reader = self._find(object_id)
            page = reader.page(name, objects, in_window=True)
            if note := _note(objects, page):
                self._notes[name] = note
            yield page

        return pages

    def _object_of(self, name: str) -> str:
        """Return the object of a parked event, because Stripe keeps events for 30 days; else the name itself."""
        event = self.ledger.parked_event(name) if kind_of(name) is EVENTS else None
        if event is None or not event.payload:
            return name
        try:
            source = read_event(event.payload)
        except InvalidDeliveryError:
            return name
        object_id = source.object.get("id") or (source.related or name).rpartition("/")[2]
        return object_id if isinstance(object_id, str) else name

    def _find(self, object_id: str) -> tuple[list[JSONObject], AccountReader]:
        """Return the related objects from the account that has the object; raises :class:`NamedObjectError`."""
        for account in self.scope.every_account:
            reader = AccountReader(self.stripe, self.scope, account, since=0)
            if objects := related_objects(reader, object_id):
                _check_mode(objects, self.scope)
                return objects, reader
        raise NamedObjectError(_unknown(object_id, self.scope))

    def _resolve_parked(self, page: Page) -> None:
        """Retry the parked events that the page's objects made complete, and report those that stay."""
        keys = {each.payment_id or each.event.id for each in page.objects if _concerns_credits(each.interpretation)}
        events = {
            event.id: event
            for key in sorted(keys)
            for event in retrying(self.retry_seconds)(self.ledger.find_parked, key)
        }
        for event in events.values():
            match event.resolution:
                case None if not self._is_resolved(event):
                    self.report.remains(event)
                case "discarded" if self.report.is_discarded:
                    self.report.remains(event)

    def _is_resolved(self, event: ParkedEvent) -> bool:
        if self.dry_run or event.reason not in _UNREAD:
            return False
        outcome = Retry(self.ledger, self.scope, self.stripe).settle(event)
        if outcome.name == "recorded":
            entries = self.ledger.entries_of(event.payment_id or event.id)
            moved = sum(entry.amount for entry in entries if entry.event_id == event.id)
            self.report.add(Item("missing", "event", event.id, event.payment_id, moved))
        return outcome.name != "parked"


def _check(name: str, scope: EventScope) -> None:
    if kind_of(name) is None:
        advice = _INSTEAD.get(name.partition("_")[0], _NAMES)
        raise NamedObjectError(f"cannot be reconciled: {advice}")
    mode = {"cs_live_": True, "cs_test_": False}.get(name[:8])
    if mode is not None and mode != scope.livemode:
        raise NamedObjectError(_wrong_mode(livemode=mode))


def _check_mode(objects: Sequence[JSONObject], scope: EventScope) -> None:
    for source in objects:
        livemode = source.get("livemode")
        if isinstance(livemode, bool) and livemode != scope.livemode:
            raise NamedObjectError(_wrong_mode(livemode=livemode))


def _wrong_mode(*, livemode: bool) -> str:
    mode = "live" if livemode else "test"
    return f"it is of {mode} mode: run the command with STRIPE_LIVEMODE and STRIPE_API_KEY of {mode} mode"


def _unknown(object_id: str, scope: EventScope) -> str:
    mode = "live" if scope.livemode else "test"
    accounts = " and ".join(["the key's account", *sorted(scope.accounts)])
    advice = "check the id and STRIPE_API_KEY, and STRIPE_ACCOUNT if a connected account sold it"
    if kind_of(object_id) is EVENTS:
        advice = "Stripe keeps events for 30 days: name the event's object"
    return f"Stripe does not have it in {mode} mode, in {accounts}: {advice}"


def _concerns_credits(interpretation: object) -> bool:
    return not isinstance(interpretation, Ignored)


def _note(objects: Sequence[JSONObject], page: Page) -> str | None:
    """Return why nothing is to be recorded, ``None`` if something is or may be."""
    if page.failed or any(each.facts or isinstance(each.interpretation, Unresolvable) for each in page.objects):
        return None
    reasons = {each.interpretation.reason for each in page.objects if isinstance(each.interpretation, Ignored)}
    if reasons:
        return f"grants no credits ({', '.join(sorted(reasons))})"
    states = [(source["object"], source.get("status")) for source in objects if source.get("object") in KIND_BY_NAME]
    return (
        f"not paid: the {states[0][0]} is {states[0][1]}" if states else "grants no credits: no payment belongs to it"
    )
