"""``webhook audit --stripe``: whether the money of each payment is what Stripe says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from webhook.audit.checks import Comparison, Finding
from webhook.events.event import EventScope
from webhook.events.facts import Facts, Link, Reversal
from webhook.events.fields import JSONObject, UnexpectedShapeError
from webhook.events.reversals import dispute
from webhook.events.sales import invoice_payment
from webhook.ledger.ledger import Ledger, Money
from webhook.reconcile.objects import DISPUTES, INVOICES, PAYMENT_INTENTS, SESSIONS, Kind, is_object, payments_in
from webhook.settings import read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.client import StripeUnavailableError

_SINCE = timedelta(days=30)


def comparison(since: datetime | None, until: datetime | None) -> Comparison:
    """Return what compares the payments made in that time, by default the last 30 days, with Stripe."""
    settings, scope = read_reader_settings(), read_event_scope()
    until = until or datetime.now(UTC)
    since = since or until - _SINCE
    return lambda ledger: StripeAudit(StripeReader(settings), ledger, scope, since, until).findings()


@dataclass(frozen=True)
class StripeAudit:
    """Compares what was created at Stripe from ``since`` to ``until`` with the ledger, a page at a time.

    Then it asks for what the ledger granted in that time and Stripe did not list. What the ledger does not know is the
    matter of reconciliation.
    """

    reader: StripeReader
    ledger: Ledger
    scope: EventScope
    since: datetime
    until: datetime

    def findings(self) -> Iterator[Finding]:
        """Yield what differs; raises :class:`StripeUnavailableError` or :class:`LedgerUnavailableError`."""
        listed: set[str] = set()
        for account in self.scope.every_account:
            for payment, money in self._known(account, PAYMENT_INTENTS, expand=["data.latest_charge"]):
                listed.add(money.payment_id)
                yield from self._compare_payment(account, payment, money)
            for invoice, money in self._known(account, INVOICES, expand=["data.payments"]):
                listed.add(money.payment_id)
                yield from _compare(invoice, "money paid", invoice.get("amount_paid"), money.paid, money)
                yield from self._unlinked(account, invoice)
        for payment_id in self.ledger.granted(self.since, self.until):
            if payment_id not in listed and not self._is_at_stripe(payment_id):
                yield Finding(
                    "stripe", {"payment_id": payment_id}, "a sale that Stripe does not know", None, payment_id
                )

    def _is_at_stripe(self, payment_id: str) -> bool:
        kind = {"pi": PAYMENT_INTENTS, "in": INVOICES, "cs": SESSIONS}.get(payment_id.partition("_")[0])
        if kind is None:
            return False
        with _naming(kind):
            return any(self.reader.get(account, kind.path, payment_id) for account in self.scope.every_account)

    def _known(self, account: str | None, kind: Kind, expand: Sequence[str] = ()) -> Iterator[tuple[JSONObject, Money]]:
        """Yield the listed objects whose sale is known, with what the ledger says of their money."""
        since, until = int(self.since.timestamp()), int(self.until.timestamp())
        with _naming(kind):
            for page in self.reader.created(account, kind.path, since, until, expand=list(expand)):
                objects = {source["id"]: source for source in page if is_object(source)}
                for money in self.ledger.money_of(list(objects)):
                    yield objects[money.payment_id], money

    def _compare_payment(self, account: str | None, payment: JSONObject, money: Money) -> Iterator[Finding]:
        yield from _compare(payment, "money paid", payment.get("amount_received"), money.paid, money)
        charge = payment.get("latest_charge")
        if isinstance(charge, dict):
            yield from _compare(payment, "money refunded", charge.get("amount_refunded"), money.refunded, money)
            disputed = self._disputed(account, payment) if charge.get("disputed") else 0
            yield from _compare(payment, "money disputed", disputed, money.disputed, money)

    def _unlinked(self, account: str | None, invoice: JSONObject) -> Iterator[Finding]:
        """Yield which payments of the invoice are not known as such: their refunds take no credits of it."""
        payments = payments_in(self.reader.with_all_payments(account, invoice))
        paid = [payment for payment in payments if is_object(payment) and payment.get("status") == "paid"]
        pairs = [(link.invoice_id, link.payment_id) for payment in paid for link in _links_of(payment)]
        for invoice_id, payment_id in self.ledger.unlinked(pairs) if pairs else ():
            yield Finding("stripe", {"payment_id": invoice_id}, "a payment of the invoice", payment_id, None)

    def _disputed(self, account: str | None, payment: JSONObject) -> int:
        """Return the money that the payment's disputes keep from us, by the rule of the ledger."""
        every = self.reader.pages(account, DISPUTES.path, payment_intent=payment["id"])
        return sum(_money_of_dispute(source) for page in every for source in page if is_object(source))


@contextmanager
def _naming(kind: Kind) -> Iterator[None]:
    """Name the right that is missing where Stripe refuses."""
    try:
        yield
    except StripeUnavailableError as error:
        raise error.with_permission_hint(kind.right) from error


def _links_of(payment: JSONObject) -> list[Link]:
    try:
        told = invoice_payment(payment)
    except UnexpectedShapeError:
        return []
    facts = told.facts if isinstance(told, Facts) else ()
    return [fact for fact in facts if isinstance(fact, Link)]


def _money_of_dispute(source: JSONObject) -> int:
    try:
        told = dispute(source)
    except UnexpectedShapeError:
        return 0  # It is parked, which the audit tells.
    facts = told.facts if isinstance(told, Facts) else ()
    return sum(fact.money_amount for fact in facts if isinstance(fact, Reversal))


def _compare(source: JSONObject, what: str, expected: Any, found: int | None, money: Money) -> Iterator[Finding]:
    """Yield a finding where the two differ; amounts in different currencies tell nothing of each other."""
    if None in (expected, found) or expected == found or money.currency not in (None, source.get("currency")):
        return
    yield Finding("stripe", {"payment_id": source["id"]}, f"{what}, in minor units", expected, found)
