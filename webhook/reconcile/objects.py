"""Objects as Stripe lists them now, read as the events that would have told of them: pure functions, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from webhook.events.event import Event, EventScope
from webhook.events.facts import Customer, Fact, Facts, Interpretation, Unresolvable
from webhook.events.fields import IDENTIFIER, JSONObject
from webhook.events.interpret import interpret
from webhook.events.lookups import Lookup, Resolve, SessionLines


@dataclass(frozen=True)
class Kind:
    """A kind of object that Stripe lists by creation, and how."""

    name: str
    """As it stands in an object's ``object``."""
    title: str
    """As people call several."""
    right: str
    """What a restricted key needs."""
    path: str
    look_back: timedelta
    """How long before the window one may have been created to which something happened in it."""
    expand: tuple[str, ...] = ()
    """What is wanted inside the objects: https://docs.stripe.com/expand."""
    expand_older: tuple[str, ...] = ()
    """What is wanted in those that were created before the window: when they were paid."""

    def expanded(self, *, older: bool, within: str = "data.") -> list[str]:
        """Return ``expand`` as a request takes it."""
        return [within + field for field in self.expand + (self.expand_older if older else ())]


SESSIONS = Kind(
    "checkout.session",
    "Checkout Sessions",
    "Checkout Sessions: Read, PaymentIntents: Read, Charges and Refunds: Read",
    "/v1/checkout/sessions",
    timedelta(days=35),
    expand=("line_items",),
    expand_older=("payment_intent.latest_charge",),
)
PAYMENT_INTENTS = Kind(
    "payment_intent",
    "PaymentIntents",
    "PaymentIntents: Read, Charges and Refunds: Read",
    "/v1/payment_intents",
    timedelta(days=35),
    expand_older=("latest_charge",),
)
INVOICES = Kind("invoice", "invoices", "Invoices: Read", "/v1/invoices", timedelta(days=180), expand=("payments",))
REFUNDS = Kind("refund", "refunds", "Charges and Refunds: Read", "/v1/refunds", timedelta(days=35))
DISPUTES = Kind("dispute", "disputes", "Disputes: Read", "/v1/disputes", timedelta(days=180))
KINDS = (SESSIONS, PAYMENT_INTENTS, INVOICES, REFUNDS, DISPUTES)
"""What reconciliation lists. An invoice's payments are in it."""

INVOICE_PAYMENT = "invoice_payment"
INVOICE_PAYMENTS = "/v1/invoice_payments"
TITLES = {kind.name: kind.title for kind in KINDS} | {INVOICE_PAYMENT: "invoices' payments"}


@dataclass(frozen=True)
class Found:
    """An object, and what it says about credits."""

    event: Event
    """The event that would have told of it, whose id is the object's own."""
    interpretation: Interpretation
    only_known: bool
    """Whether it counts only where its sale is known: it was paid before the window."""

    @property
    def kind(self) -> str:
        """The object's kind, a key of :data:`TITLES`."""
        return str(self.event.object["object"])

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What it says, nothing where it cannot be settled or is not about credits."""
        return self.interpretation.facts if isinstance(self.interpretation, Facts) else ()

    @property
    def payment_id(self) -> str | None:
        """The sale that it is about, as far as it says."""
        return self.interpretation.payment_id if isinstance(self.interpretation, Facts | Unresolvable) else None

    @property
    def payload(self) -> str:
        """The event's body."""
        event = self.event
        body = {"id": event.id, "object": "event", "type": event.type, "livemode": event.livemode}
        return json.dumps(body | {"account": event.account, "data": {"object": event.object}})


def read(  # noqa: PLR0913 - one for each thing that decides what an object says
    source: JSONObject, account: str | None, scope: EventScope, resolve: Resolve, since: int, *, in_window: bool = False
) -> Iterator[Found]:
    """Yield what an object says, then what the objects in it say: nothing where nothing has happened to it yet.

    What happened before ``since`` (seconds) counts only for known sales, unless it is known to be ``in_window``.
    """
    event = as_event(source, account, scope)
    if event:
        found = Found(event, interpret(event, scope, _ask_object_first(source, resolve)), only_known=False)
        is_older = not in_window and happened_at(source) < since
        yield replace(found, only_known=is_older and _could_grant(found))
        for payment in payments_in(source):
            for each in read(payment, account, scope, resolve, since, in_window=True):
                yield replace(each, only_known=is_older)


def as_event(source: JSONObject, account: str | None, scope: EventScope) -> Event | None:
    """Return the event that tells of the object as it is, ``None`` where none would be about credits yet."""
    match source.get("object"), source.get("status"):
        case "checkout.session", "complete":
            event_type = "checkout.session.completed"
        case "payment_intent", "succeeded":
            event_type = "payment_intent.succeeded"
        case "invoice", "paid":
            event_type = "invoice.paid"
        case "invoice_payment", "paid":
            event_type = "invoice_payment.paid"
        case "refund", _:
            event_type = "refund.updated"
        case "dispute", _:
            event_type = "charge.dispute.updated"
        case _:
            return None
    # A refund does not say its mode, which is the key's.
    return Event(str(source["id"]), event_type, source.get("livemode", scope.livemode), account, source)


def happened_at(source: JSONObject) -> int:
    """Return when the object was paid, as far as it says, else when it was created, in seconds.

    A delayed payment may have succeeded later than the start of its charge, which is what is known here.
    """
    match source:
        case {"object": "checkout.session", "payment_intent": {"created": int()} as payment}:
            return happened_at(payment)
        case {"latest_charge": {"created": int(at)}} | {"status_transitions": {"paid_at": int(at)}}:
            return at
        case {"created": int(at)}:
            return at
        case _:
            return 0


def payments_in(source: JSONObject) -> list[Any]:
    """Return the payments that an invoice holds."""
    match source:
        case {"object": "invoice", "payments": {"data": list(payments)}}:
            return payments
        case _:
            return []


def is_object(source: Any) -> bool:
    """Whether this is an object of Stripe's at all, with an id that can be stored."""
    return isinstance(source, dict) and isinstance(source.get("id"), str) and bool(IDENTIFIER.fullmatch(source["id"]))


def _could_grant(found: Found) -> bool:
    """Whether it could grant credits, now or once mended: what reverses a sale never does, nor who a customer is."""
    if found.kind in (REFUNDS.name, DISPUTES.name):
        return False
    match found.interpretation:
        case Facts(facts):
            return not all(isinstance(fact, Customer) for fact in facts)
        case _:
            return True


def _ask_object_first(source: JSONObject, resolve: Resolve) -> Resolve:
    """Answer with the line items that the object holds, if it holds them all."""

    def answer(question: Lookup) -> Any:
        match question, source.get("line_items"):
            case SessionLines(), {"data": list(lines), "has_more": False}:
                return lines
            case _:
                return resolve(question)

    return answer
