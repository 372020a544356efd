"""Lines of an invoice, read the same way for every API version. Pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from webhook.events.fields import JSONObject, UnexpectedShapeError, instant, optional_id, signed_amount
from webhook.events.line_items import price_id_of

_DISCOUNT = "discount"


@dataclass(frozen=True)
class InvoiceLine:
    """One line: https://docs.stripe.com/api/invoice-line-item/object. Amounts are in minor units."""

    source: JSONObject
    amount: int
    """Before discounts. Inclusive taxes are part of it, exclusive taxes are not."""
    discount: int
    other_credits: int
    """Pretax credits that are not discounts, such as a billing credit grant."""
    is_proration: bool
    is_subscription_item: bool
    """Whether an item of the invoice's subscription generated it: a plan or metered usage, not an invoice item."""
    is_of_subscription: bool
    """Whether it names the invoice's subscription."""
    start: int
    end: int
    """The period, in seconds since 1970."""

    @property
    def is_known_kind(self) -> bool:
        """Whether this version knows what generated the line."""
        parent = self.source.get("parent")
        if isinstance(parent, dict):
            return parent.get("type") in ("subscription_item_details", "invoice_item_details")
        return "parent" in self.source or self.source.get("type") in ("subscription", "invoiceitem")

    @property
    def net(self) -> int:
        """The amount less discounts."""
        return self.amount - self.discount

    @property
    def price_id(self) -> str | None:
        """The id of the line's price. Since 2025-03-31.basil it is in ``pricing``."""
        return price_id_of(self.source)

    @property
    def own_price(self) -> JSONObject | None:
        """The price, if the line contains it: before API version 2025-03-31.basil."""
        price = self.source.get("price")
        return price if isinstance(price, dict) else None


def subscription_details_of(source: JSONObject) -> JSONObject:
    """Return what the invoice contains of its subscription, empty without a subscription.

    In ``parent`` since 2025-03-31.basil: https://docs.stripe.com/changelog/basil/2025-03-31/invoicing-parent-attribute.
    """
    holder = source.get("parent") or source
    details = holder.get("subscription_details") if isinstance(holder, dict) else None
    return details if isinstance(details, dict) else {}


def subscription_of(source: JSONObject) -> str | None:
    """Return the id of the invoice's subscription, ``None`` if it has none."""
    return optional_id(subscription_details_of(source), "subscription") or optional_id(source, "subscription")


def read_lines(lines: list[Any], subscription_id: str | None) -> list[InvoiceLine]:
    """Return the lines of an invoice of this subscription; raise :class:`UnexpectedShapeError`."""
    return [_read_line(line, subscription_id) for line in lines]


def _read_line(line: Any, subscription_id: str | None) -> InvoiceLine:
    if not isinstance(line, dict):
        raise UnexpectedShapeError("lines")
    period = line.get("period")
    if not isinstance(period, dict):
        raise UnexpectedShapeError("period")
    line_subscription = _subscription_of(line)
    is_own = line_subscription == subscription_id or None in (line_subscription, subscription_id)
    return InvoiceLine(
        source=line,
        amount=signed_amount(line, "amount"),
        discount=_discount(line),
        other_credits=_credit_amounts(line, discounts=False),
        is_proration=_is_proration(line),
        is_subscription_item=is_own and _is_subscription_item(line),
        is_of_subscription=line_subscription is not None and line_subscription == subscription_id,
        start=instant(period, "start"),
        end=instant(period, "end"),
    )


def _discount(line: JSONObject) -> int:
    """Return the line's discounts. Newer API versions list them a second time, among the pretax credits."""
    amounts = line.get("discount_amounts")
    if amounts is None:
        return _credit_amounts(line, discounts=True)
    return sum(signed_amount(each, "amount") for each in _objects(amounts, "discount_amounts"))


def _credit_amounts(line: JSONObject, *, discounts: bool) -> int:
    """Return the pretax credits: https://docs.stripe.com/api/invoice-line-item/object, ``pretax_credit_amounts``."""
    credits_ = _objects(line.get("pretax_credit_amounts") or [], "pretax_credit_amounts")
    return sum(signed_amount(each, "amount") for each in credits_ if (each.get("type") == _DISCOUNT) is discounts)


def _objects(values: Any, key: str) -> list[JSONObject]:
    if isinstance(values, list) and all(isinstance(each, dict) for each in values):
        return values
    raise UnexpectedShapeError(key)


def _details(line: JSONObject) -> Iterator[JSONObject]:
    """Yield the details of what generated the line: in ``parent`` since 2025-03-31.basil."""
    parent = line.get("parent")
    kind = parent.get("type") if isinstance(parent, dict) else None
    details = parent.get(kind) if isinstance(parent, dict) and isinstance(kind, str) else None
    if isinstance(details, dict):
        yield details


def _is_proration(line: JSONObject) -> bool:
    return any(holder.get("proration") is True for holder in (line, *_details(line)))


def _subscription_of(line: JSONObject) -> str | None:
    ids = [optional_id(holder, "subscription") for holder in (*_details(line), line)]
    return next((each for each in ids if each), None)


def _is_subscription_item(line: JSONObject) -> bool:
    parent = line.get("parent")
    if isinstance(parent, dict):
        return parent.get("type") == "subscription_item_details"
    return line.get("type") == "subscription"
