"""Events that name an object which Stripe does not have."""

from __future__ import annotations

from support.recorded import session_event, thin_event
from support.shop import Shop

SALE = session_event()
THIN = thin_event("v1.checkout.session.completed", f"/v1/checkout/sessions/{SALE['data']['object']['id']}")


def test_retry_with_the_key_of_the_right_account_settles(shop: Shop) -> None:
    """As the advice says. Until then each retry leaves the event parked with the true reason."""
    shop.deliver(THIN)
    wrong = shop.run("retry")
    assert (wrong.exit_code, wrong.stdout) == (1, f"{THIN['id']}\tparked\tmissing_object\n")
    assert "STRIPE_API_KEY" in shop.run("parked", THIN["id"]).stdout
    shop.stripe.add_events(SALE)
    right = shop.run("retry")
    assert (right.exit_code, right.stdout, shop.balance()) == (0, f"{THIN['id']}\trecorded\n", 100)


def test_retry_of_a_sale_with_missing_line_items_stays_parked(shop: Shop) -> None:
    shop.deliver(session_event(event_id="evt_1", credits=None))
    result = shop.run("retry")
    assert result.exit_code == 1
    assert result.stdout.startswith("evt_1\tparked\tmissing_object")


def test_retry_with_a_404_of_another_server_exits_with_2(shop: Shop) -> None:
    """The reason stays: STRIPE_API_BASE may be wrong."""
    shop.deliver(THIN)
    shop.stripe.error_status = lambda *_: 404
    result = shop.run("retry")
    assert (result.exit_code, result.stdout) == (2, f"{THIN['id']}\tparked\tmissing_api_key\n")
