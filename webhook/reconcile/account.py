"""Reads the objects of one Stripe account, each with all that its interpretation needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from webhook.events.event import EventScope
from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.lookups import Lookup
from webhook.reconcile.objects import InterpretedObject, interpret_object
from webhook.reconcile.pages import FailedObject, Page
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.kinds import INVOICE_PAYMENTS_PATH, SESSIONS, Kind, is_object, payments_in

_PRICE_PERMISSIONS = "Prices: Read, Products: Read"
"""What a restricted key needs, beside the permission for the object, if the credits are not in its metadata."""


class UnreadableObjectError(Exception):
    """A listed object has no id, or refers to something that Stripe cannot return, such as a deleted price."""


@dataclass(frozen=True)
class AccountReader:
    """Reads and interprets objects. A read may raise :class:`StripeUnavailableError`."""

    stripe: StripeReader
    scope: EventScope
    account: str | None
    """A connected account, ``None`` for the key's own."""
    since: int
    """The start of the window, in seconds since 1970."""

    def page(
        self, title: str, objects: list[JSONObject], reached: int | None = None, *, in_window: bool = False
    ) -> Page:
        """Return the page of a source: each object interpreted, or listed as failed if it cannot be read."""
        interpreted: list[InterpretedObject] = []
        failed: list[FailedObject] = []
        for source in objects:
            try:
                interpreted += self._interpret(source, in_window=in_window)
            except UnreadableObjectError as error:
                failed.append(_failed(source, str(error)))
        return Page(title, interpreted, len(objects), reached, failed)

    def get(self, kind: Kind, object_id: str) -> list[JSONObject]:
        """Return the object, or an empty list if Stripe does not have it."""
        expand = kind.expand_parameter(older=False, prefix="")
        source = self.stripe.get(self.account, kind.path, object_id, expand=expand)
        return [source] if source else []

    def session_and_payment(self, payment_id: str) -> list[JSONObject]:
        """Return the session of a payment, then the payment. Only the payment shows that it was captured manually."""
        expand = [*SESSIONS.expand_parameter(older=False), "data.payment_intent"]
        pages = self.stripe.pages(self.account, SESSIONS.path, payment_intent=payment_id, expand=expand)
        sessions = _objects_if_known(pages)
        payments: list[Any] = [session.get("payment_intent") for session in sessions if is_object(session)]
        return sessions + [payment for payment in payments if is_object(payment)]

    def listed(self, kind: Kind, **filters: str) -> list[JSONObject]:
        """Return the objects of a list that belong to another object, which ``filters`` name."""
        expand = kind.expand_parameter(older=False)
        return _objects_if_known(self.stripe.pages(self.account, kind.path, expand=expand, **filters))

    def invoice_payments(self, payment_id: str) -> list[JSONObject]:
        """Return the invoice payments of a PaymentIntent: they name the invoices that it paid."""
        payment = {"type": "payment_intent", "payment_intent": payment_id}
        return _objects_if_known(self.stripe.pages(self.account, INVOICE_PAYMENTS_PATH, payment=payment))

    def _interpret(self, source: Any, *, in_window: bool) -> Iterator[InterpretedObject]:
        complete = self._with_all_payments(source)
        return interpret_object(complete, self.account, self.scope, self._resolve, self.since, in_window=in_window)

    def _with_all_payments(self, source: Any) -> JSONObject:
        _require_object(source)
        complete = self.stripe.with_all_payments(self.account, source)
        for payment in payments_in(complete):
            _require_object(payment)
        return complete

    def _resolve(self, lookup: Lookup) -> Any:
        try:
            return self.stripe.resolver(self.account)(lookup)
        except StripeUnavailableError as error:
            if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                raise UnreadableObjectError(f"{type(lookup).__name__}: {error}") from error
            # Without its status: with it, the permission for the list would be reported as missing.
            raise StripeUnavailableError(str(error.with_permission_hint(_PRICE_PERMISSIONS))) from error


def _objects_if_known(pages: Iterator[list[JSONObject]]) -> list[JSONObject]:
    """Return all objects of a payment's list, none if the account does not have the payment."""
    try:
        return [each for page in pages for each in page]
    except StripeUnavailableError as error:
        if error.is_missing_resource:
            return []
        raise


def _require_object(source: Any) -> None:
    if not is_object(source):
        raise UnreadableObjectError("Stripe's response contains something that is not an object with an id")


def _failed(source: Any, reason: str) -> FailedObject:
    """Return the failed object with an id and a kind that are safe to print: they may be any JSON value."""
    names = [source.get(field) if isinstance(source, dict) else None for field in ("id", "object")]
    printable = [name if isinstance(name, str) and IDENTIFIER.fullmatch(name) else "?" for name in names]
    return FailedObject(printable[0], printable[1], reason)
