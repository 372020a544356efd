"""One run of ``webhook reconcile``: choose the window, read all sources, record what is missing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from webhook.errors import ExpectedError
from webhook.events.event import EventScope
from webhook.ledger.ledger import Ledger
from webhook.output import silence_notice
from webhook.reconcile.account import AccountReader
from webhook.reconcile.failures import failure_of
from webhook.reconcile.pages import Page, Source, SourceEnd, read_all
from webhook.reconcile.recorder import Recorder, retrying
from webhook.reconcile.report import WindowReport
from webhook.reconcile.sources import AccountSources, Window
from webhook.settings import read_database_url, read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader

_OVERLAP = timedelta(hours=1)
"""A run starts this long before the end of the last one: new objects may appear late in Stripe's lists."""
_OPEN_FOR = timedelta(days=180)
"""How long after its recording an unpaid sale is looked up again."""


class ReconcileError(ExpectedError):
    """A run cannot start. The message contains the remedy."""


def run(*, since: datetime | None, until: datetime | None, dry_run: bool, as_json: bool) -> int:
    """Reconcile the given window, by default from the end of the last run until now, and return the exit code.

    Raises :class:`ReconcileError`, :class:`SettingsError` or :class:`LedgerUnavailableError` if it cannot start.
    """
    settings, scope = read_reader_settings(), read_event_scope()
    with closing(Ledger(read_database_url())) as ledger:
        ledger.current_schema_version()
        covered_until = ledger.covered_until()
        since, until = window(since, until, covered_until)
        report = WindowReport(since, until, dry_run=dry_run, as_json=as_json)
        reader = StripeReader(settings, silence_notice(settings))
        reconciliation = Reconciliation(ledger, reader, scope, since, until, dry_run, report)
        error = failure_of(partial(reconciliation.run, covered_until))
        reader.stop()
        report.finish(reader.requests, error)
    return report.exit_code


def window(since: datetime | None, until: datetime | None, covered_until: datetime | None) -> tuple[datetime, datetime]:
    """Return the start and end of the window, or raise :class:`ReconcileError`.

    Without ``since`` it starts where earlier runs ended. The first run requires it: it may grant sales from
    before the worker was installed.
    """
    now = datetime.now(UTC)
    # The future is not read, so it must not be noted as covered.
    until = min(until or now, now)
    since = since or _default_since(covered_until)
    if since >= until:
        raise ReconcileError(f"--since ({since:%Y-%m-%d %H:%M %Z}) is not before --until ({until:%Y-%m-%d %H:%M %Z})")
    return since, until


def _default_since(covered_until: datetime | None) -> datetime:
    if covered_until is None:
        raise ReconcileError(
            "the first run needs --since: it grants what was paid from then on. Give the time when this worker "
            "began to sell credits, such as --since 3d or --since 2026-11-01"
        )
    return covered_until - _OVERLAP


@dataclass(frozen=True)
class Reconciliation:
    """One run over a window; a ``dry_run`` changes nothing."""

    ledger: Ledger
    stripe: StripeReader
    scope: EventScope
    since: datetime
    until: datetime
    dry_run: bool
    report: WindowReport

    def run(self, covered_until: datetime | None) -> None:
        """Read all sources, record what is missing, and fill the report.

        Raises :class:`LedgerUnavailableError` if the database stays away. Stripe's errors go to the report.
        """
        if covered_until and covered_until < self.since:
            self.report.warn_of_gap(covered_until, self.since)
        accounts = self._accounts(self.ledger.open_objects(self.since - _OPEN_FOR))
        run_id = None if self.dry_run else self.ledger.begin_reconciliation(self.since, self.until)
        # One group after another: the last one reads what the groups before it did not explain.
        groups = [
            *(account.sources() for account in accounts),
            [account.invoices_of(self._reversals_without_sale) for account in accounts],
        ]
        self.report.begin([source for sources in groups for source in sources])
        for sources in groups:
            self._read(sources)
        if run_id is not None and self.report.is_complete:
            self.ledger.finish_reconciliation(run_id)

    def _accounts(self, open_ids: Sequence[str]) -> list[AccountSources]:
        within = Window(int(self.since.timestamp()), int(self.until.timestamp()))
        return [
            AccountSources(AccountReader(self.stripe, self.scope, account, within.since), within, open_ids)
            for account in self.scope.every_account
        ]

    def _reversals_without_sale(self) -> list[str]:
        return retrying()(self.ledger.reversals_without_sale, self.since)

    def _read(self, sources: Sequence[Source]) -> None:
        recorder = Recorder(self.ledger, self.report, self.dry_run)
        stopped = threading.Event()
        try:
            for item in read_all(sources, stopped):
                match item:
                    case Page():
                        recorder.record(item)
                        self.report.read(item)
                    case SourceEnd(title, error):
                        self.report.end(title, error)
        finally:
            stopped.set()
