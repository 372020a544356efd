"""``webhook reconcile`` and the objects that cannot be settled."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from support.reconciliation import SESSION, priced_session
from support.recorded import USER_ID, invoice_event, session_event
from support.shop import Shop
from webhook import cli


def test_object_not_settled_is_parked_under_its_own_id(shop: Shop) -> None:
    """``webhook retry`` settles it after the sign-up."""
    other = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.stripe.add_events(session_event(user_id=other))
    [item] = shop.found("--since", "1d")["items"]
    assert (item["id"], item["status"], item["reason"]) == (SESSION, "parked", "unknown_user")
    shop.admin.execute("insert into auth.users (id) values (%s)", [other])
    environment = {"DATABASE_URL": shop.database.url, "STRIPE_LIVEMODE": "false"}
    assert CliRunner(env=environment).invoke(cli.commands, ["retry", SESSION]).exit_code == 0
    assert shop.balance(other) == 100


@pytest.mark.parametrize("parked_by", ["webhook", "run"])
def test_parked_object_is_neither_parked_twice_nor_missing(shop: Shop, parked_by: str) -> None:
    """A webhook or an earlier run has parked it."""
    event = session_event(credits=None)
    shop.stripe.add_events(event)
    if parked_by == "webhook":
        shop.deliver(event)
    else:
        shop.found("--since", "1d")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["items"], found["parked_before"]) == (0, [], 1)
    assert "1 cannot be settled, 0 of them new" in shop.reconcile("--since", "1d").stdout


def test_unreadable_object_is_not_parked_twice(shop: Shop) -> None:
    """Its parked event has no payment id."""
    event = session_event(amount_total="much")
    shop.stripe.add_events(event)
    shop.deliver(event)
    assert shop.found("--since", "1d")["items"] == []


def test_parked_event_that_jsonb_rejects_does_not_stop_a_run(shop: Shop) -> None:
    """The run compares every object that it finds with the parked events."""
    odd = session_event(event_id="evt_odd", id="cs_odd", payment_intent="pi_odd", amount_total="much")
    odd["data"]["object"]["metadata"] |= {"nul": "\u0000", "half": "\ud800"}
    shop.deliver(odd)
    shop.stripe.add_events(odd, session_event(credits=None))
    found = shop.found("--since", "1d")
    assert [each["id"] for each in found["items"]] == [SESSION]
    assert (found["exit_code"], found["parked_before"]) == (1, 1)


def test_subscription_of_an_erased_user_is_not_recorded_again(shop: Shop) -> None:
    """Its session contains the customer, and a parked payload would be kept."""
    session = session_event(mode="subscription", payment_intent=None, customer="cus_1")
    shop.stripe.add_events(session, invoice_event(id="in_1", customer="cus_1"))
    shop.found("--since", "1d")
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.admin.execute("select from billing.parked_events").rowcount == 0


@pytest.mark.parametrize(
    "corrupted",
    [{}, {"amount_total": "much"}, {"amount_total": "\0\ud800"}],
    ids=["incomplete", "unreadable", "invalid text"],
)
def test_discarded_event_stays_discarded(shop: Shop, corrupted: dict[str, Any]) -> None:
    """This also holds if the event has no readable payment id."""
    event = session_event(credits=None, **corrupted)
    shop.stripe.add_events(event)
    shop.deliver(event)
    environment = {"OPERATOR_DATABASE_URL": shop.database.operator_url}
    discarded = CliRunner(env=environment).invoke(cli.commands, ["discard", event["id"], "--reason", "a test purchase"])
    assert discarded.exit_code == 0
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["parked_before"]) == (0, 0)
    assert shop.admin.execute("select from billing.parked_events").rowcount == 1


@pytest.mark.parametrize("reference", ["order_1234", "42", "00000000-0000-4000-8000-000000000000"])
def test_session_of_another_product_is_not_parked(shop: Shop, reference: str) -> None:
    """Its price names no credits, and its reference is no user of ours."""
    other = priced_session(None)
    other["data"]["object"] |= {"client_reference_id": reference, "metadata": {"user_id": reference}}
    shop.stripe.objects["price_1"] = {
        "id": "price_1",
        "object": "price",
        "metadata": {},
        "product": "prod_1",
        "created": 0,
    }
    shop.stripe.add_events(other)
    found = shop.found("--since", "1d")
    assert (found["items"], found["exit_code"]) == ([], 0)
    assert shop.run("parked").stdout == shop.run("audit").stdout == ""
