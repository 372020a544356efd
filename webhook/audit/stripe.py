"""``webhook audit --stripe``: checks the money of each payment against Stripe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

from webhook.audit.checks import Comparison, Finding
from webhook.events.event import EventScope
from webhook.events.facts import Fact, Facts, Ignored, Interpretation, Link, Reversal, Sale
from webhook.events.fields import JSONObject, UnexpectedShapeError, metadata
from webhook.events.invoices import invoice, invoice_payment
from webhook.events.lookups import Lookup, MissingObjectError, Resolve
from webhook.events.reversals import dispute
from webhook.ledger.ledger import Ledger, Money
from webhook.output import silence_notice
from webhook.settings import read_event_scope, read_reader_settings
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.kinds import DISPUTES, INVOICES, PAYMENT_INTENTS, SESSIONS, Kind, is_object, payments_in

_DEFAULT_WINDOW = timedelta(days=30)
_KIND_BY_PREFIX = {"pi": PAYMENT_INTENTS, "in": INVOICES, "cs": SESSIONS}


def comparison(since: datetime | None, until: datetime | None) -> Comparison:
    """Return the comparison of payments created in that time with Stripe, by default of the last 30 days."""
    settings, scope = read_reader_settings(), read_event_scope()
    until = until or datetime.now(UTC)
    since = since or until - _DEFAULT_WINDOW
    reader = StripeReader(settings, silence_notice(settings))
    return lambda ledger: StripeAudit(reader, ledger, scope, since, until).findings()


@dataclass(frozen=True)
class StripeAudit:
    """Compares Stripe's objects created from ``since`` to before ``until`` with the ledger, a page at a time.

    Then it looks up the sales that the ledger granted in that time and Stripe did not list. Payments that the ledger
    does not know are not compared: ``webhook reconcile`` finds them.
    """

    stripe: StripeReader
    ledger: Ledger
    scope: EventScope
    since: datetime
    until: datetime

    def findings(self) -> Iterator[Finding]:
        """Yield the differences; raises :class:`StripeUnavailableError` or :class:`LedgerUnavailableError`."""
        listed: set[str] = set()
        for account in self.scope.every_account:
            for payment, money in self._known(account, PAYMENT_INTENTS, expand=["data.latest_charge"]):
                listed.add(money.payment_id)
                yield from self._compare_payment(account, payment, money)
            for source, money in self._known(account, INVOICES, expand=["data.payments"]):
                listed.add(money.payment_id)
                yield from _compare(source, "money paid", source.get("amount_paid"), money.paid, money)
                yield from self._unlinked(account, source)
                yield from self._compare_credits(account, source, money)
        yield from self._unknown_at_stripe(listed)

    def _unknown_at_stripe(self, listed: set[str]) -> Iterator[Finding]:
        for payment_id in self.ledger.granted(self.since, self.until):
            if payment_id not in listed and not self._is_at_stripe(payment_id):
                subject = {"payment_id": payment_id}
                yield Finding("stripe", subject, "a sale that Stripe does not know", None, payment_id)

    def _is_at_stripe(self, payment_id: str) -> bool:
        kind = _KIND_BY_PREFIX.get(payment_id.partition("_")[0])
        if kind is None:
            return False
        with _permission_hint(kind):
            return any(self.stripe.get(account, kind.path, payment_id) for account in self.scope.every_account)

    def _known(self, account: str | None, kind: Kind, expand: Sequence[str] = ()) -> Iterator[tuple[JSONObject, Money]]:
        """Yield the listed objects whose sale the ledger knows, each with its money in the ledger."""
        since, until = int(self.since.timestamp()), int(self.until.timestamp())
        with _permission_hint(kind):
            for page in self.stripe.created(account, kind.path, since, until, expand=list(expand)):
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

    def _compare_credits(self, account: str | None, source: JSONObject, money: Money) -> Iterator[Finding]:
        """Yield a finding if the invoice granted other credits than the periods that it begins.

        Credits in its own metadata and on prices may have changed since, so they are not compared.
        """
        expected = _credits_of_periods(source, partial(self._resolve, account))
        if None not in (expected, money.invoice_credits) and expected != money.invoice_credits:
            yield Finding("stripe", {"payment_id": source["id"]}, "credits granted", expected, money.invoice_credits)

    def _resolve(self, account: str | None, lookup: Lookup) -> Any:
        """Return the answer to a lookup, ``None`` if the key lacks the permission or Stripe lacks the object."""
        try:
            return self.stripe.resolver(account)(lookup)
        except MissingObjectError:
            return None
        except StripeUnavailableError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return None
            raise

    def _unlinked(self, account: str | None, invoice: JSONObject) -> Iterator[Finding]:
        """Yield the invoice's payments that the ledger does not link to it: their refunds take no credits back."""
        payments = payments_in(self.stripe.with_all_payments(account, invoice))
        paid = [payment for payment in payments if is_object(payment) and payment.get("status") == "paid"]
        pairs = [(link.invoice_id, link.payment_id) for payment in paid for link in _links_of(payment)]
        for invoice_id, payment_id in self.ledger.unlinked(pairs) if pairs else ():
            subject = {"payment_id": invoice_id}
            yield Finding("stripe", subject, "a payment of the invoice is not linked to it", payment_id, None)

    def _disputed(self, account: str | None, payment: JSONObject) -> int:
        """Return the money that the payment's disputes have taken, by the ledger's rule, in minor units."""
        pages = self.stripe.pages(account, DISPUTES.path, payment_intent=payment["id"])
        return sum(_money_of_dispute(source) for page in pages for source in page if is_object(source))


@contextmanager
def _permission_hint(kind: Kind) -> Iterator[None]:
    """Name the missing permission if Stripe refuses a request for objects of this kind."""
    try:
        yield
    except StripeUnavailableError as error:
        raise error.with_permission_hint(kind.permission) from error


def _credits_of_periods(source: JSONObject, resolve: Resolve) -> int | None:
    """Return the credits that the invoice's periods grant, ``None`` if that is not certain."""
    try:
        interpretation = invoice(source, resolve) if "credits" not in metadata(source) else None
    except UnexpectedShapeError:
        return None
    match interpretation:
        case Facts(facts):
            return next((fact.credits for fact in facts if isinstance(fact, Sale) and not fact.priced), None)
        case Ignored(reason) if reason not in ("no_credits", "zero_credits"):
            return 0
        case _:
            return None


def _links_of(payment: JSONObject) -> list[Link]:
    try:
        interpretation = invoice_payment(payment)
    except UnexpectedShapeError:
        return []
    return [fact for fact in _facts_of(interpretation) if isinstance(fact, Link)]


def _money_of_dispute(source: JSONObject) -> int:
    try:
        interpretation = dispute(source)
    except UnexpectedShapeError:
        return 0  # Its event is parked, and reported as such.
    return sum(fact.money_amount for fact in _facts_of(interpretation) if isinstance(fact, Reversal))


def _facts_of(interpretation: Interpretation) -> tuple[Fact, ...]:
    return interpretation.facts if isinstance(interpretation, Facts) else ()


def _compare(source: JSONObject, name: str, expected: Any, found: int | None, money: Money) -> Iterator[Finding]:
    """Yield a finding if the two amounts differ. Amounts in different currencies cannot be compared."""
    if None in (expected, found) or expected == found or money.currency not in (None, source.get("currency")):
        return
    yield Finding("stripe", {"payment_id": source["id"]}, f"{name}, in minor units", expected, found)
