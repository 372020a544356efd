"""Records what a page of objects adds to the ledger, and parks what cannot be settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from webhook.events.facts import Ignored, Unresolvable
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Reconciled
from webhook.reconcile.findings import Findings
from webhook.reconcile.objects import InterpretedObject
from webhook.reconcile.pages import Page
from webhook.reconcile.report import Item
from webhook.stripe_api.kinds import INVOICES

RETRY_SECONDS = 30
"""How long a call of the database is retried."""


def retrying(seconds: float = RETRY_SECONDS) -> Retrying:
    """Return the retries for a call of the database; afterwards it raises :class:`LedgerUnavailableError`."""
    return Retrying(
        retry=retry_if_exception_type(LedgerUnavailableError),
        wait=wait_exponential(multiplier=0.5, max=5),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


@dataclass(frozen=True)
class Recorder:
    """Writes to the ledger, except in a dry run, and adds items to the report."""

    ledger: Ledger
    report: Findings
    dry_run: bool
    retry_seconds: float = RETRY_SECONDS

    def record(self, page: Page) -> None:
        """Record the page's facts and park its unresolvable objects.

        Raises :class:`LedgerUnavailableError` if the database stays away. An object that the database refuses is
        reported as failed.
        """
        for failed in page.failed:
            self.report.add(Item("failed", failed.kind, failed.id, None, reason=failed.reason))
        self._record_facts({each.event.id: each for each in page.objects if each.facts})
        for each in page.objects:
            match each.interpretation:
                case Unresolvable(reason, payment_id, ()) if not each.requires_known_sale:
                    self._park(each, reason, payment_id)
                case Ignored(reason) if each.kind == INVOICES.name and not each.requires_known_sale:
                    self.report.ignored_invoices[reason] += 1

    def _record_facts(self, objects: dict[str, InterpretedObject]) -> None:
        for result in self._results(list(objects.values())):
            each = objects[result.object_id]
            match result.outcome.name:
                case "recorded":
                    self.report.add(Item("missing", each.kind, result.object_id, each.payment_id, result.credits))
                case "unsettled" if each.payment_id:
                    # Without a payment it only names a customer's user. Parked, it would outlive their erasure.
                    self._park(each, str(result.outcome.reason), each.payment_id)
                case "left_alone":
                    self.report.skipped += each.is_paid_sale

    def _results(self, objects: Sequence[InterpretedObject]) -> list[Reconciled]:
        """Record all objects in one call; if that fails, one by one, so that one failure does not affect the others."""
        if not objects:
            return []
        try:
            return self._retrying()(self._reconcile, objects)
        except LedgerUnavailableError:
            self.ledger.schema_version()  # raises if the database is away
        return [result for each in objects for result in self._results_alone(each)]

    def _results_alone(self, each: InterpretedObject) -> list[Reconciled]:
        try:
            return self._reconcile([each])
        except LedgerUnavailableError as error:
            self._fail(each, error)
            return []

    def _reconcile(self, objects: Sequence[InterpretedObject]) -> list[Reconciled]:
        deliveries = [(each.event.id, each.facts, each.requires_known_sale) for each in objects]
        return self.ledger.reconcile(deliveries, dry_run=self.dry_run)

    def _park(self, each: InterpretedObject, reason: str, payment_id: str | None) -> None:
        """Park an object under its own id, unless it is parked, was discarded, or its sale was settled meanwhile."""
        object_id = each.event.id
        state = self._retrying()(self.ledger.parked_already, object_id, payment_id)
        if state is not None:
            self.report.stays(object_id, state)
        elif self.dry_run or self._is_parked(each, reason, payment_id):
            self.report.add(Item("parked", each.kind, object_id, payment_id, reason=reason))

    def _is_parked(self, each: InterpretedObject, reason: str, payment_id: str | None) -> bool:
        park = partial(self.ledger.park, each.event, reason, payment_id, each.payload)
        try:
            return park().name == "parked"
        except LedgerUnavailableError:
            self._retrying()(self.ledger.schema_version)  # raises if the database stays away
        try:
            return park().name == "parked"
        except LedgerUnavailableError as error:
            self._fail(each, error)
            return False

    def _fail(self, each: InterpretedObject, error: LedgerUnavailableError) -> None:
        self.report.add(Item("failed", each.kind, each.event.id, each.payment_id, reason=str(error)))

    def _retrying(self) -> Retrying:
        return retrying(self.retry_seconds)
