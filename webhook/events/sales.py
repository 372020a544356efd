"""Checkout Sessions and PaymentIntents to facts: what was sold to whom. Pure functions, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from webhook.events.facts import (
    GIFT,
    ONE_TIME_PAYMENT,
    ONE_TIME_SALE,
    PAYMENT_INTENT,
    SESSION,
    SESSION_METADATA,
    SESSION_REFERENCE,
    Claim,
    Facts,
    Ignored,
    Interpretation,
    Link,
    Sale,
    Unresolvable,
)
from webhook.events.fields import JSONObject, amount, currency, metadata, optional_id, required_id, word
from webhook.events.line_items import credits_of_lines
from webhook.events.lookups import Resolve, SessionLines

MOST_CREDITS = 1_000_000_000
"""The largest sale, in credits."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}")


@dataclass
class Grant:
    """The user, credits, subscription and Stripe customer that an object names, unchecked."""

    user: Any
    credits: Any
    """A string from metadata, or the sum of line items."""
    customer_id: str | None
    subscription_id: str | None = None
    priced: bool = False
    """Whether the credits come from line items."""
    user_id: str | None = field(init=False)
    """The user as a UUID in its usual form, else ``None``."""
    credit_count: int | None = field(init=False)
    """The credits as a whole number within the limit, else ``None``."""

    def __post_init__(self) -> None:
        """Read user and credits once: several functions look at them."""
        self.user_id = user_id_of(self.user)
        self.credit_count = _credit_count(self.credits)

    def sale(self, payment_id: str, version: int, money_amount: int, currency: str, *, paid: bool) -> Sale:
        """Return the sale of this grant. It names subscription and customer only if the object names no user."""
        names_no_user = self.user is None
        return Sale(
            payment_id,
            version,
            self.user_id,
            self.credit_count,
            money_amount,
            currency,
            paid,
            self.subscription_id if names_no_user else None,
            self.customer_id if names_no_user else None,
            self.priced,
        )

    def parked_reason(self) -> str | None:
        """Return the reason why this grant cannot be settled; ``None`` if its values are well-formed.

        Without credits it has none: a reference that is not a UUID may belong to another product.
        """
        if self.credits is None:
            return None
        if self.credit_count is None:
            return "missing_user" if self.user is None and self.customer_id is None else "invalid_credits"
        return "unknown_user" if self.user is not None and self.user_id is None else None


def _credit_count(credits_: Any) -> int | None:
    if isinstance(credits_, str) and _DIGITS.fullmatch(credits_):
        number = int(credits_)
    elif type(credits_) is int:
        number = credits_
    else:
        return None
    return number if 0 <= number <= MOST_CREDITS else None


def user_id_of(name: Any) -> str | None:
    """Return the name if it is a UUID, else ``None``: it may be an order number or an affiliate's name."""
    return name if isinstance(name, str) and _UUID.fullmatch(name) else None


def one_time_claims(grant: Grant, level: int = ONE_TIME_PAYMENT) -> tuple[Claim, ...]:
    """Return the claim of a one-time sale: its customer is for its user, if it names both."""
    if grant.customer_id is None or grant.user_id is None:
        return ()
    return (Claim(None, grant.customer_id, grant.user_id, level),)


def session_claims(grant: Grant, reference: Any, *, paid: bool) -> tuple[Claim, ...]:
    """Return the claim of a one-time session. It is a gift if the reference is another user than the metadata's.

    The payer of a gift buys for another user, who claims nothing, although other sources of the sale name them.
    """
    reference_id, user_id = user_id_of(reference), grant.user_id
    if reference_id and user_id and reference_id.lower() != user_id.lower():
        return one_time_claims(grant, GIFT)
    return one_time_claims(grant, ONE_TIME_SALE) if paid else ()


def subscription_claims(
    subscription_id: str | None, customer_id: str | None, *named: tuple[Any, int], created: int | None = None
) -> tuple[Claim, ...]:
    """Return the claims of a subscription by each of ``named`` that is a UUID, with its level."""
    if subscription_id is None:
        return ()
    users = ((user_id_of(name), level) for name, level in named)
    return tuple(Claim(subscription_id, customer_id, user_id, level, created) for user_id, level in users if user_id)


def grant_of(source: JSONObject, names: JSONObject, fallback_user: Any = None) -> Grant:
    """Return the grant in ``names``, the metadata of ``source``."""
    user = names.get("user_id") or fallback_user or None
    return Grant(user, names.get("credits"), optional_id(source, "customer"))


def settleable(
    grant: Grant, sale: Sale, claims: tuple[Claim, ...] = (), links: tuple[Link, ...] = ()
) -> Interpretation:
    """Return the facts of a sale, or why it has to be parked."""
    reason = grant.parked_reason()
    if reason:
        return Unresolvable(reason, sale.payment_id, (*links, replace(sale, unusable=reason)))
    return Facts((*links, *claims, sale))


def checkout_session(source: JSONObject, resolve: Resolve) -> Interpretation:
    """Return the sale of a Checkout Session: https://docs.stripe.com/api/checkout/sessions/object.

    The sale of a subscription is its invoice. Its session only claims the subscription for its user.
    """
    if source.get("mode") == "setup":
        return Ignored("no_payment")
    user, reference = metadata(source).get("user_id"), source.get("client_reference_id")
    if source.get("mode") == "subscription":
        claims = subscription_claims(
            optional_id(source, "subscription"),
            optional_id(source, "customer"),
            (user, SESSION_METADATA),
            (reference, SESSION_REFERENCE),
        )
        return Facts(claims) if claims else Ignored("no_payment")
    grant = grant_of(source, metadata(source), reference)
    if grant.credits is None:
        lines = resolve(SessionLines(required_id(source, "id")))
        grant = grant if lines is None else replace(grant, credits=credits_of_lines(lines, resolve), priced=True)
    if grant.user_id is None and grant.credits is None:
        return Ignored("no_credits")
    if grant.credit_count == 0:
        return Ignored("zero_credits")
    session_id = required_id(source, "id")
    payment_id = optional_id(source, "payment_intent") or session_id
    money = amount(source, "amount_total")
    status = word(source, "payment_status")
    paid = status == "paid" or (status == "no_payment_required" and money == 0)
    sale = grant.sale(payment_id, SESSION, money, currency(source), paid=paid)
    claims = session_claims(grant, reference, paid=paid)
    invoice_id = optional_id(source, "invoice")
    links = (Link(session_id, invoice_id, payment_id),) if invoice_id else ()
    return settleable(grant, sale, claims, links)


def payment_intent(source: JSONObject) -> Interpretation:
    """Return the sale of a PaymentIntent: https://docs.stripe.com/api/payment_intents/object.

    Without credits in its metadata it counts only for manual capture, where it states the captured amount. Every other
    flow has another event that reports the payment.
    """
    grant = grant_of(source, metadata(source))
    if grant.credits is None and not uses_manual_capture(source):
        return Ignored("no_credits")
    if grant.credit_count == 0:
        return Ignored("zero_credits")
    money = amount(source, "amount_received")
    sale = grant.sale(required_id(source, "id"), PAYMENT_INTENT, money, currency(source), paid=True)
    return settleable(grant, sale, one_time_claims(grant))


def uses_manual_capture(source: JSONObject) -> bool:
    """Return whether the payment, or one of its payment methods, uses manual capture."""
    methods = source.get("payment_method_options")
    options = methods.values() if isinstance(methods, dict) else ()
    return any(isinstance(each, dict) and each.get("capture_method") == "manual" for each in (source, *options))
