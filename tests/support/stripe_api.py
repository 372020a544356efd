"""Objects and lists as Stripe's API returns them: https://docs.stripe.com/api."""

from __future__ import annotations

from typing import Any

from support.recorded import session_event

BASE = "https://api.stripe.com"
SESSION = session_event()["data"]["object"]["id"]
LINES = f"{BASE}/v1/checkout/sessions/{SESSION}/line_items"
PRICE = {"id": "price_1", "object": "price", "metadata": {"credits": "100"}, "product": "prod_1"}
LINE = {"id": "li_1", "object": "item", "quantity": 2, "price": PRICE, "amount_total": 1000}


def page(*objects: Any, has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(objects), "has_more": has_more, "url": "/v1/…"}
