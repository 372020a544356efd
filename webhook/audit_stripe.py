"""``webhook audit --stripe``: whether the money of each payment is what Stripe says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from webhook.audit import Comparison, Finding
from webhook.facts import Facts, Reversal
from webhook.ledger import Ledger, Money
from webhook.listed import DISPUTES, INVOICES, PAYMENT_INTENTS, is_object
from webhook.objects import JSONObject, Unreadable
from webhook.reversals import dispute
from webhook.settings import Guards, read_guards, read_reader_settings
from webhook.stripe_api import StripeUnavailable
from webhook.stripe_reader import StripeReader

_SINCE = timedelta(days=30)


def comparison(since: datetime | None, until: datetime | None) -> Comparison:
    """Return what compares the payments made in that time, by default the last 30 days, with Stripe."""
    settings, guards = read_reader_settings(), read_guards()
    until = until or datetime.now(UTC)
    since = since or until - _SINCE
    return lambda ledger: StripeAudit(StripeReader(settings), ledger, guards, since, until).findings()


@dataclass(frozen=True)
class StripeAudit:
    """Compares what was created at Stripe from ``since`` to ``until`` with the ledger, a page at a time.

    Payments that the ledger does not know at all are reconciliation's matter.
    """

    reader: StripeReader
    ledger: Ledger
    guards: Guards
    since: datetime
    until: datetime

    def findings(self) -> Iterator[Finding]:
        """Yield what differs; raises :class:`StripeUnavailable` or :class:`LedgerUnavailable`."""
        for account in (None, *sorted(self.guards.accounts)):
            for payment, money in self._known(account, PAYMENT_INTENTS.path, PAYMENT_INTENTS.right, "latest_charge"):
                yield from self._compare_payment(account, payment, money)
            for invoice, money in self._known(account, INVOICES.path, INVOICES.right):
                yield from _compare(invoice, "money paid", invoice.get("amount_paid"), money.paid, money)

    def _known(self, account: str | None, path: str, right: str, *expand: str) -> Iterator[tuple[JSONObject, Money]]:
        """Yield the listed objects whose sale is known, with what the ledger says of their money."""
        created = {"gte": int(self.since.timestamp()), "lt": int(self.until.timestamp())}
        try:
            for page in self.reader.pages(account, path, created=created, expand=[f"data.{field}" for field in expand]):
                objects = {source["id"]: source for source in page if is_object(source)}
                for money in self.ledger.money_of(list(objects)):
                    yield objects[money.payment_id], money
        except StripeUnavailable as error:
            raise error.because_of(right) from error

    def _compare_payment(self, account: str | None, payment: JSONObject, money: Money) -> Iterator[Finding]:
        yield from _compare(payment, "money paid", payment.get("amount_received"), money.paid, money)
        charge = payment.get("latest_charge")
        if isinstance(charge, dict):
            yield from _compare(payment, "money refunded", charge.get("amount_refunded"), money.refunded, money)
            disputed = self._disputed(account, payment) if charge.get("disputed") else 0
            yield from _compare(payment, "money disputed", disputed, money.disputed, money)

    def _disputed(self, account: str | None, payment: JSONObject) -> int:
        """Return the money that the payment's disputes keep from us, by the rule of the ledger."""
        every = self.reader.pages(account, DISPUTES.path, payment_intent=payment["id"])
        return sum(_money_of_dispute(source) for page in every for source in page)


def _money_of_dispute(source: JSONObject) -> int:
    try:
        told = dispute(source)
    except Unreadable:
        return 0  # It is parked, which the audit tells.
    facts = told.facts if isinstance(told, Facts) else ()
    return sum(fact.money_amount for fact in facts if isinstance(fact, Reversal))


def _compare(source: JSONObject, what: str, expected: Any, found: int | None, money: Money) -> Iterator[Finding]:
    """Yield a finding where the two differ; amounts in different currencies tell nothing of each other."""
    if None in (expected, found) or expected == found or money.currency not in (None, source.get("currency")):
        return
    yield Finding("stripe", {"payment_id": source["id"]}, f"{what}, in minor units", expected, found)
