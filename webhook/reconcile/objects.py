"""Stripe's objects as they are now, interpreted like the events about them. Pure functions, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from webhook.events.event import Event, EventScope
from webhook.events.facts import Claim, Fact, Facts, Interpretation, Sale, Unresolvable
from webhook.events.fields import JSONObject
from webhook.events.interpret import interpret
from webhook.events.lookups import Lookup, Resolve, SessionLines
from webhook.stripe_api.kinds import DISPUTES, REFUNDS, payments_in


@dataclass(frozen=True)
class InterpretedObject:
    """An object and its interpretation."""

    event: Event
    """The event that describes the object as it is now. Its id is the object's."""
    interpretation: Interpretation
    requires_known_sale: bool
    """Whether it counts only if the ledger knows its sale, because it was paid before the window."""

    @property
    def kind(self) -> str:
        """The name of the object's kind, a key of :data:`TITLES`."""
        return str(self.event.object["object"])

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The object's facts, also those about money alone; empty if it is not about credits."""
        return self.interpretation.facts if isinstance(self.interpretation, Facts | Unresolvable) else ()

    @property
    def payment_id(self) -> str | None:
        """The sale that the object belongs to, ``None`` if it names none."""
        return self.interpretation.payment_id if isinstance(self.interpretation, Facts | Unresolvable) else None

    @property
    def payload(self) -> str:
        """The event's body, as JSON."""
        event = self.event
        body = {"id": event.id, "object": "event", "type": event.type, "livemode": event.livemode}
        return json.dumps(body | {"account": event.account, "data": {"object": event.object}})

    @property
    def is_paid_sale(self) -> bool:
        """Whether it is a paid sale of credits.

        A manually captured PaymentIntent that names neither user nor credits is not: its session is.
        """
        payment = self.event.object.get("payment_intent")
        is_captured = isinstance(payment, dict) and payment.get("status") == "succeeded"
        sales = [fact for fact in self.facts if isinstance(fact, Sale) and (fact.paid or is_captured)]
        return any(sale.user_id or sale.credits for sale in sales)


def interpret_object(  # noqa: PLR0913 - each one decides the interpretation
    source: JSONObject, account: str | None, scope: EventScope, resolve: Resolve, since: int, *, in_window: bool = False
) -> Iterator[InterpretedObject]:
    """Yield the interpretation of an object, then those of the payments in it; nothing for an unfinished object.

    Sales paid before ``since`` (seconds since 1970) require a known sale, unless they are known to be ``in_window``.
    """
    event = as_event(source, account, scope)
    if event:
        interpretation = interpret(event, scope, _resolve_from_object(source, resolve))
        interpreted = InterpretedObject(event, interpretation, requires_known_sale=False)
        is_older = not in_window and paid_at(source) < since
        yield replace(interpreted, requires_known_sale=is_older and _could_grant(interpreted))
        for payment in payments_in(source):
            for each in interpret_object(payment, account, scope, resolve, since, in_window=True):
                yield replace(each, requires_known_sale=is_older)


def as_event(source: JSONObject, account: str | None, scope: EventScope) -> Event | None:
    """Return the event that describes the object as it is now, ``None`` if no event about credits would exist yet."""
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
    # A refund has no livemode: its mode is the key's.
    return Event(str(source["id"]), event_type, source.get("livemode", scope.livemode), account, source)


def paid_at(source: JSONObject) -> int:
    """Return when the object was paid, in seconds since 1970, or its creation if it does not contain that.

    For a delayed payment method this is the creation of its charge. The payment may have succeeded later.
    """
    match source:
        case {"object": "checkout.session", "payment_intent": {"created": int()} as payment}:
            return paid_at(payment)
        case {"latest_charge": {"created": int(at)}} | {"status_transitions": {"paid_at": int(at)}}:
            return at
        case {"created": int(at)}:
            return at
        case _:
            return 0


def _could_grant(interpreted: InterpretedObject) -> bool:
    """Whether it could grant credits, now or after a retry. Reversals and claims never do."""
    if interpreted.kind in (REFUNDS.name, DISPUTES.name):
        return False
    match interpreted.interpretation:
        case Facts(facts):
            return not all(isinstance(fact, Claim) for fact in facts)
        case _:
            return True


def _resolve_from_object(source: JSONObject, resolve: Resolve) -> Resolve:
    """Return ``resolve`` without the request for line items, if the object contains all of them."""

    def resolve_lookup(lookup: Lookup) -> Any:
        match lookup, source.get("line_items"):
            case SessionLines(), {"data": list(lines), "has_more": False}:
                return lines
            case _:
                return resolve(lookup)

    return resolve_lookup
