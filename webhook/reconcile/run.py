"""``webhook reconcile``: what Stripe knows and the ledger does not is recorded as its event would have been."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from webhook.events.event import EventScope
from webhook.events.facts import Sale, Unresolvable
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Reconciled
from webhook.reconcile.objects import Found
from webhook.reconcile.report import Item, Report
from webhook.reconcile.sources import End, Page, Places, Source, Window, read_all
from webhook.settings import read_database_url, read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader

_OVERLAP = timedelta(hours=1)
"""A run begins this long before the end of the last one: Stripe's lists may lag behind for a moment."""
_OPEN_FOR = timedelta(days=180)
"""How long a sale that is not paid yet is asked for."""
_PATIENCE = 30
"""Seconds that the database may be away for."""


class ReconcileError(Exception):
    """A run cannot begin; the message says what to do."""


def window(since: datetime | None, until: datetime | None, covered_until: datetime | None) -> tuple[datetime, datetime]:
    """Return from when to when to look, or raise :class:`ReconcileError`.

    Without ``since`` it is from where the earlier runs have looked, which the first one missing_setting: sales of before the
    worker are granted only where an operator says so.
    """
    now = datetime.now(UTC)
    # What has yet to happen is not looked at, and must not count as looked at.
    until = min(until or now, now)
    if since is None:
        if covered_until is None:
            raise ReconcileError(
                "the first run needs --since, for it grants what was paid from then on: say when this worker "
                "began to sell credits, such as --since 3d or --since 2026-11-01"
            )
        since = covered_until - _OVERLAP
    if since >= until:
        raise ReconcileError(f"--since ({since:%Y-%m-%d %H:%M %Z}) is not before --until ({until:%Y-%m-%d %H:%M %Z})")
    return since, until


def run(*, since: datetime | None, until: datetime | None, dry_run: bool, as_json: bool) -> int:
    """Reconcile the given window, by default since the last run, and return the exit code.

    Raises :class:`ReconcileError`, :class:`SettingsError`, or :class:`LedgerUnavailableError` where it cannot begin.
    """
    settings, scope = read_reader_settings(), read_event_scope()
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        covered_until = ledger.covered_until()
        since, until = window(since, until, covered_until)
        reader = StripeReader(settings)
        trouble: BaseException | None = None
        report = Report(since, until, dry_run=dry_run, as_json=as_json)
        try:
            if covered_until and covered_until < since:
                report.warn_of_gap(covered_until, since)
            Run(ledger, reader, scope, since, until, dry_run, report).go()
        except (LedgerUnavailableError, OSError) as error:
            trouble = error
        except KeyboardInterrupt:
            trouble = InterruptedError("interrupted")
        except Exception as error:  # noqa: BLE001 - a defect: exit code 1 would say that all is recorded now
            traceback.print_exc()
            trouble = error
        reader.stop()
        report.finish(reader.requests, trouble)
    return report.exit_code


@dataclass(frozen=True)
class Run:
    """One reconciliation: of which window, for whom, and whether it may change anything."""

    ledger: Ledger
    reader: StripeReader
    scope: EventScope
    since: datetime
    until: datetime
    dry_run: bool
    report: Report

    def go(self) -> None:
        """Look at everything, record what is missing, and tell the report.

        Raises :class:`LedgerUnavailableError` where the database stays away; trouble at Stripe is the report's.
        """
        open_ids = self.ledger.open_objects(self.since - _OPEN_FOR)
        run_id = None if self.dry_run else self.ledger.begin_reconciliation(self.since, self.until)
        within = Window(int(self.since.timestamp()), int(self.until.timestamp()))
        accounts = [Places(self.reader, self.scope, within, account, open_ids) for account in self.scope.every_account]
        # A group after the other: the last one asks for what the ones before it could not explain.
        groups = [
            *(places.sources() for places in accounts),
            [places.invoices_of(self._strange_payments) for places in accounts],
        ]
        self.report.begin([source for sources in groups for source in sources])
        for sources in groups:
            self._read(sources)
        if run_id is not None and self.report.is_complete:
            self.ledger.finish_reconciliation(run_id)

    def _strange_payments(self) -> list[str]:
        return _patience()(self.ledger.strange_payments, self.since)

    def _read(self, sources: Sequence[Source]) -> None:
        stopped = threading.Event()
        try:
            for item in read_all(sources, stopped):
                match item:
                    case Page():
                        self._settle(item)
                        self.report.read(item)
                    case End(title, trouble):
                        self.report.end(title, trouble)
        finally:
            stopped.set()

    def _settle(self, page: Page) -> None:
        """Record what a page says, park what cannot be recorded, and tell what of it was missing."""
        for failed in page.failed:
            self.report.found(Item("failed", failed.kind, failed.id, None, reason=failed.why))
        told = {found.event.id: found for found in page.found if found.facts}
        for result in self._record(list(told.values())):
            found = told[result.object_id]
            match result.outcome.name:
                case "recorded":
                    self.report.found(Item("missing", found.kind, result.object_id, found.payment_id, result.credits))
                case "unsettled" if found.payment_id:
                    # Who a customer is alone is no money, and must not come back once that user was erased.
                    self._park(found, str(result.outcome.reason), found.payment_id)
                case "left_alone":
                    self.report.left_alone += _is_paid_sale(found)
        for found in page.found:
            match found.interpretation:
                case Unresolvable(reason, payment_id) if not found.only_known:
                    self._park(found, reason, payment_id)

    def _park(self, found: Found, reason: str, payment_id: str | None) -> None:
        """Park an object, under its own id, unless it waits already, was discarded before, or needs no more."""
        object_id = found.event.id
        why_not = _patience()(self.ledger.parked_already, object_id, payment_id)
        self.report.waiting += why_not == "waiting"
        if why_not is None and (self.dry_run or self._is_parked(found, reason, payment_id)):
            self.report.found(Item("parked", found.kind, object_id, payment_id, reason=reason))

    def _is_parked(self, found: Found, reason: str, payment_id: str | None) -> bool:
        park = partial(self.ledger.park, found.event, reason, payment_id, found.payload)
        try:
            return park().name == "parked"
        except LedgerUnavailableError:
            _patience()(self.ledger.schema_version)  # raises where the whole database stays away
        try:
            return park().name == "parked"
        except LedgerUnavailableError as error:
            self._failed(found, error)
            return False

    def _failed(self, found: Found, error: LedgerUnavailableError) -> None:
        self.report.found(Item("failed", found.kind, found.event.id, found.payment_id, reason=str(error)))

    def _record(self, found: Sequence[Found]) -> list[Reconciled]:
        """Record what a page says in one call; where that fails, one by one, so that one takes no other down."""
        if not found:
            return []
        try:
            return _patience()(self._recorded, found)
        except LedgerUnavailableError:
            self.ledger.schema_version()  # raises where the whole database is away
        return [result for each in found for result in self._record_alone(each)]

    def _record_alone(self, found: Found) -> list[Reconciled]:
        try:
            return self._recorded([found])
        except LedgerUnavailableError as error:
            self._failed(found, error)
            return []

    def _recorded(self, found: Sequence[Found]) -> list[Reconciled]:
        deliveries = [(each.event.id, each.facts, each.only_known) for each in found]
        return self.ledger.reconcile(deliveries, dry_run=self.dry_run)


def _is_paid_sale(found: Found) -> bool:
    """Whether it is a sale of credits, which a payment captured by hand need not be: its session tells of them."""
    payment = found.event.object.get("payment_intent")
    is_captured = isinstance(payment, dict) and payment.get("status") == "succeeded"
    sales = [fact for fact in found.facts if isinstance(fact, Sale) and (fact.paid or is_captured)]
    return any(sale.user_id or sale.credits for sale in sales)


def _patience() -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(LedgerUnavailableError),
        wait=wait_exponential(multiplier=0.5, max=5),
        stop=stop_after_delay(_PATIENCE),
        reraise=True,
    )
