"""Events and objects for the tests of ``webhook reconcile``."""

from __future__ import annotations

import time
from typing import Any

from support.model import new_id
from support.recorded import invoice_event, invoice_payment_event, session_event
from support.stripe_stand_in import DAY

PAYMENT = session_event()["data"]["object"]["payment_intent"]
SESSION = session_event()["data"]["object"]["id"]
INVOICE = invoice_event(id="in_1", credits=30, amount_paid=900)
LINK = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_of_invoice")


def days_ago(days: float) -> int:
    return int(time.time() - days * DAY)


def unpaid_session(**fields: Any) -> dict[str, Any]:
    return session_event("checkout.session.completed.unpaid", event_id=new_id("evt"), payment_intent=PAYMENT, **fields)


def paid_session(**fields: Any) -> dict[str, Any]:
    """Return the same session after its bank debit succeeded."""
    name = "checkout.session.async_payment_succeeded"
    source = unpaid_session()["data"]["object"]
    return session_event(name, event_id=new_id("evt"), id=source["id"], payment_intent=PAYMENT, **fields)


def priced_session(per_item: int | None) -> dict[str, Any]:
    """Return a session whose price has the credits, or leaves them to the product if ``per_item`` is None."""
    metadata = {} if per_item is None else {"credits": str(per_item)}
    price = {"id": "price_1", "object": "price", "metadata": metadata, "product": "prod_1"}
    line = {"id": "li_1", "object": "item", "quantity": 1, "price": price, "amount_total": 1000}
    sold = session_event(credits=None)
    sold["data"]["object"]["line_items"] = {"object": "list", "data": [line], "has_more": False}
    return sold
