"""`webhook reconcile` finds what Stripe says about the money of sales that operators assigned."""

from __future__ import annotations

from support.operators import assign
from support.recorded import USER_ID, session_event
from support.roles import connected
from support.shop import Shop

BAD = {"credits": "ten", "payment_intent": "pi_1"}


def test_payment_of_an_assigned_sale_is_granted(shop: Shop) -> None:
    """The session has unusable credits, and the event of its payment never arrived."""
    shop.deliver(session_event("checkout.session.completed.unpaid", **BAD))
    with connected(shop.database, "billing_operator") as operator:
        assign(operator, "pi_1", credits_=70)
    paid = session_event("checkout.session.async_payment_succeeded", **BAD)
    shop.stripe.add_events(paid)
    assert shop.missing("--since", "1d") == {paid["data"]["object"]["id"]: 70}
    assert shop.balance(USER_ID) == 70
    assert shop.found("--since", "1d")["exit_code"] == 0


def test_unusable_sale_is_parked_once(shop: Shop) -> None:
    """What it reports about money is recorded at once, so credits alone complete it."""
    shop.stripe.add_events(session_event(**BAD))
    assert [each["reason"] for each in shop.found("--since", "1d")["items"]] == ["invalid_credits"]
    assert shop.found("--since", "1d")["parked_before"] == 1
    with connected(shop.database, "billing_operator") as operator:
        assign(operator, "pi_1", credits_=70)
    assert shop.balance(USER_ID) == 70
    assert shop.found("--since", "1d")["exit_code"] == 0
