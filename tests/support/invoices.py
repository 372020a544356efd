"""Invoices of subscriptions, built line by line in the shape of any recorded API version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from support.recorded import NEWEST, USER_ID, VERSIONS, recorded

SUBSCRIPTION = "sub_1"
DAY = 86_400
OLDEST = VERSIONS[0]
TAX_RATE = "txr_1"


@dataclass(frozen=True)
class Plan:
    """A price: minor units and credits for one seat and one interval."""

    price_id: str
    amount: int
    credits: int = 0
    months: int = 1
    usage_type: str = "licensed"

    def price(self) -> dict[str, Any]:
        """Return the price as the API returns it."""
        [line] = recorded("invoice.paid", OLDEST)["data"]["object"]["lines"]["data"]
        recurring = line["price"]["recurring"] | {
            "interval": "month" if self.months % 12 else "year",
            "interval_count": self.months if self.months % 12 else self.months // 12,
            "usage_type": self.usage_type,
        }
        return line["price"] | {
            "id": self.price_id,
            "metadata": {"credits": str(self.credits)} if self.credits else {},
            "recurring": recurring,
            "unit_amount": self.amount,
            "unit_amount_decimal": str(self.amount),
        }


@dataclass(frozen=True)
class Line:
    """A line of an invoice; amounts are in minor units, times in seconds since 1970."""

    plan: Plan | None
    """The plan, ``None`` for an invoice item such as a fee."""
    amount: int
    start: int
    end: int
    quantity: int = 1
    proration: bool = False
    discount: int = 0
    billing_credits: int = 0
    exclusive_tax: int = 0
    subscription: str = SUBSCRIPTION
    description: str = "Credits plan"

    def with_tax(self, percent: int) -> Line:
        """Return the line with an exclusive tax."""
        return replace(self, exclusive_tax=round((self.amount - self.discount) * percent / 100))

    def total(self) -> int:
        """Return what the line adds to the invoice's total."""
        return self.amount - self.discount - self.billing_credits + self.exclusive_tax

    def shape(self, version: str, number: int) -> dict[str, Any]:
        """Return the line as events of this API version contain it."""
        [source] = recorded("invoice.paid", version)["data"]["object"]["lines"]["data"]
        common = source | {
            "id": f"{source['id']}{number}",
            "amount": self.amount,
            "description": self.description,
            "discount_amounts": [{"amount": self.discount, "discount": "di_1"}] if self.discount else [],
            "discountable": not self.proration,
            "period": {"start": self.start, "end": self.end},
            "quantity": self.quantity,
        }
        return self._old_shape(common) if version == OLDEST else self._new_shape(common, version)

    def _old_shape(self, line: dict[str, Any]) -> dict[str, Any]:
        is_item = self.plan is None or self.proration
        return line | {
            "amount_excluding_tax": self.amount,
            "plan": line["plan"] if self.plan else None,
            "price": self.plan.price() if self.plan else None,
            "proration": self.proration,
            "subscription": self.subscription,
            "subscription_item": line["subscription_item"] if self.plan else None,
            "tax_amounts": [self._old_tax()] if self.exclusive_tax else [],
            "type": "invoiceitem" if is_item else "subscription",
            "unit_amount_excluding_tax": str(self._unit_amount()),
        }

    def _new_shape(self, line: dict[str, Any], version: str) -> dict[str, Any]:
        details = {"price": self.plan.price_id, "product": "prod_1"} if self.plan else None
        subtotal = {"subtotal": self.amount, "quantity_decimal": str(self.quantity)} if version == NEWEST else {}
        credits_ = [
            {"amount": self.discount, "discount": "di_1", "type": "discount"},
            {"amount": self.billing_credits, "credit_balance_transaction": "cbtxn_1", "type": _BILLING_CREDIT},
        ]
        return line | {
            "parent": self._parent(line["parent"]),
            "pretax_credit_amounts": [each for each in credits_ if each["amount"]],
            "pricing": {
                "price_details": details,
                "type": "price_details",
                "unit_amount_decimal": str(self._unit_amount()),
            },
            "taxes": [self._new_tax()] if self.exclusive_tax else [],
            **subtotal,
        }

    def _unit_amount(self) -> int:
        """Return the unit amount of the line, which is not the price's if the line bills a part or a trial."""
        return self.amount // max(self.quantity, 1)

    def _parent(self, parent: dict[str, Any]) -> dict[str, Any]:
        if self.plan:
            kept = parent["subscription_item_details"]
            details = {"proration": self.proration, "subscription": self.subscription}
            item = {"invoice_item": "ii_1"} if self.proration else {}
            return parent | {"subscription_item_details": kept | details | item}
        details = {
            "invoice_item": "ii_1",
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": self.subscription,
        }
        return {
            "invoice_item_details": details,
            "subscription_item_details": None,
            "type": "invoice_item_details",
        }

    def _old_tax(self) -> dict[str, Any]:
        return {
            "amount": self.exclusive_tax,
            "inclusive": False,
            "tax_rate": TAX_RATE,
            "taxability_reason": "standard_rated",
            "taxable_amount": self.amount - self.discount,
        }

    def _new_tax(self) -> dict[str, Any]:
        return {
            "amount": self.exclusive_tax,
            "tax_behavior": "exclusive",
            "tax_rate_details": {"tax_rate": TAX_RATE},
            "taxability_reason": "standard_rated",
            "taxable_amount": self.amount - self.discount,
            "type": "tax_rate_details",
        }


_BILLING_CREDIT = "credit_balance_transaction"


def shapes_of(lines: Sequence[Line], version: str = NEWEST) -> list[dict[str, Any]]:
    """Return all lines of an invoice, as the API lists them. Its event contains the first ten."""
    return [line.shape(version, number) for number, line in enumerate(lines)]


def subscription_invoice(  # noqa: PLR0913 - one for each value that tests vary
    *lines: Line,
    reason: str = "subscription_cycle",
    created: int,
    version: str = NEWEST,
    credits: int | None = None,  # noqa: A002 - Stripe's metadata key
    user_id: str | None = USER_ID,
    balance: int = 0,
    ending_balance: int = 0,
    credit_note: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    """Return the event of a paid invoice with these lines; ``credits`` are in the subscription's metadata.

    ``balance`` and ``ending_balance`` are the customer's, below 0 for a credit. ``credit_note`` was given before the
    payment. The money due is what they leave of the total.
    """
    event = recorded("invoice.paid", version)
    total = sum(line.total() for line in lines)
    due = max(0, total + balance - ending_balance - credit_note)
    money = {
        "amount_due": due,
        "amount_paid": due,
        "ending_balance": ending_balance,
        "pre_payment_credit_notes_amount": credit_note,
        "starting_balance": balance,
        "subtotal": sum(line.amount for line in lines),
        "total": total,
    }
    source = event["data"]["object"]
    shapes = shapes_of(lines, version)
    listed = source["lines"] | {"data": shapes[:10], "has_more": len(shapes) > 10}
    source |= money | {"billing_reason": reason, "created": created, "lines": listed} | fields
    names = {"user_id": user_id, "credits": credits}
    metadata = {key: str(value) for key, value in names.items() if value is not None}
    holder = source if version == OLDEST else source["parent"]
    holder["subscription_details"] |= {"metadata": metadata}
    (source if version == OLDEST else holder["subscription_details"])["subscription"] = SUBSCRIPTION
    for line in source["lines"]["data"]:
        line["metadata"] = metadata
    return event
