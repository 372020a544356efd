"""`webhook reconcile ID…` repairs one sale, however old."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.model import new_id
from support.reconciliation import INVOICE, LINK, PAYMENT, SESSION, days_ago, priced_session, unpaid_session
from support.recorded import (
    dispute_event,
    invoice_event,
    payment_intent_event,
    recorded,
    refund_event,
    session_event,
)
from support.shop import Shop

OLD = days_ago(900)
REFUND = refund_event(id="re_1", payment_intent=PAYMENT, charge="ch_1", amount=300)
DISPUTE = dispute_event(id="dp_1", payment_intent=PAYMENT, charge="ch_1", amount=200, balance_transactions=[-200])
OTHER_USER = "3b241101-e2bb-4255-8caf-4136c566a962"


def charge_event() -> dict[str, Any]:
    event = recorded("charge.refunded")
    event["data"]["object"] |= {"id": "ch_1", "payment_intent": PAYMENT}
    return event


def sell_long_ago(shop: Shop, *events: dict[str, Any]) -> None:
    """These events happened 900 days ago, and Stripe has deleted them since."""
    shop.stripe.add_events(*events, at=OLD)
    shop.stripe.delete_events()


def named(shop: Shop, *names: str, **environment: str) -> list[str]:
    """Return the statuses and ids of the items of a run."""
    return [f"{each['status']} {each['id']}" for each in shop.found(*names, **environment)["items"]]


# Everything that belongs to a sale


@pytest.mark.parametrize("name", [SESSION, PAYMENT, "re_1", "dp_1", "ch_1"])
def test_each_object_of_an_old_sale_repairs_all_of_it(shop: Shop, name: str) -> None:
    """100 credits for 1000: 300 refunded and 200 disputed."""
    sell_long_ago(shop, session_event(amount=1000), charge_event(), REFUND, DISPUTE)
    assert sorted(named(shop, name)) == sorted(f"missing {each}" for each in (SESSION, "re_1", "dp_1"))
    assert shop.balance() == 50


@pytest.mark.parametrize("name", ["in_1", "inpay_1", "pi_of_invoice", "re_2"])
def test_each_object_of_an_old_invoice_repairs_all_of_it(shop: Shop, name: str) -> None:
    refund = refund_event(id="re_2", payment_intent="pi_of_invoice", amount=300)
    sell_long_ago(shop, INVOICE, LINK, refund)
    assert shop.found(name)["exit_code"] == 1
    assert shop.balance() == 20


def test_other_sales_are_left_alone(shop: Shop) -> None:
    other = session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2")
    shop.stripe.add_events(session_event(), other, refund_event(id="re_2", payment_intent="pi_2"))
    assert named(shop, SESSION) == [f"missing {SESSION}"]


def test_session_of_a_subscription_names_the_user_of_its_invoice(shop: Shop) -> None:
    """The invoice names nobody. The session's other invoices are other sales."""
    session = session_event(
        "checkout.session.completed.subscription", id="cs_s", subscription="sub_1", customer="cus_1", invoice="in_first"
    )
    invoices = [
        invoice_event(event_id=new_id("evt"), id=name, user_id=None, subscription="sub_1", customer="cus_1")
        for name in ("in_first", "in_later")
    ]
    sell_long_ago(shop, session, *invoices)
    assert sorted(named(shop, "in_later")) == ["missing cs_s", "missing in_later"]
    assert "missing in_first" in named(shop, "cs_s")


def test_event_names_its_object(shop: Shop) -> None:
    event = session_event()
    shop.stripe.add_events(event)
    assert named(shop, event["id"]) == [f"missing {SESSION}"]


def test_parked_event_that_stripe_deleted_names_its_object(shop: Shop) -> None:
    event = session_event(credits=None)
    shop.deliver(event)
    sell_long_ago(shop, session_event())
    assert (named(shop, event["id"]), shop.balance(), shop.run("parked").stdout) == ([f"missing {SESSION}"], 100, "")


def test_several_ids_of_one_sale_record_it_once(shop: Shop) -> None:
    sell_long_ago(shop, session_event(amount=1000), REFUND)
    assert len(named(shop, PAYMENT, SESSION, "re_1", PAYMENT)) == 2
    assert shop.balance() == 70


def test_object_of_a_connected_account_is_found(shop: Shop) -> None:
    shop.stripe.account = "acct_1"
    sell_long_ago(shop, session_event())
    assert shop.reconcile(PAYMENT).exit_code == 2
    assert named(shop, PAYMENT, STRIPE_ACCOUNT="acct_0,acct_1") == [f"missing {SESSION}"]


# The report


def test_second_run_reports_that_nothing_is_missing(shop: Shop) -> None:
    sell_long_ago(shop, session_event(), REFUND)
    assert shop.reconcile(PAYMENT).exit_code == 1
    before = shop.contents()
    result = shop.reconcile(PAYMENT)
    assert (result.exit_code, shop.contents()) == (0, before)
    assert "Nothing is missing." in result.stdout


def test_dry_run_of_a_name_changes_nothing(shop: Shop) -> None:
    sell_long_ago(shop, session_event(), REFUND)
    before = shop.contents()
    result = shop.reconcile(PAYMENT, "--dry-run")
    assert (result.exit_code, shop.contents()) == (1, before)
    assert "2 missing, would be recorded (dry run)" in result.stdout


def test_run_of_a_name_does_not_count_as_a_nightly_run(shop: Shop) -> None:
    shop.stripe.add_events(session_event())
    shop.found("--since", "1d")
    [before] = shop.admin.execute("select billing.covered_until(), count(*) from billing.reconciliations").fetchall()
    shop.found(PAYMENT)
    assert shop.admin.execute("select billing.covered_until(), count(*) from billing.reconciliations").fetchall() == [
        before
    ]


def test_parked_sale_is_reported_with_its_remedy(shop: Shop) -> None:
    sell_long_ago(shop, session_event(user_id=OTHER_USER))
    first, second = shop.reconcile(PAYMENT), shop.reconcile(PAYMENT)
    for result in (first, second):
        assert f"{SESSION}: parked as unknown_user: the user that the payment names has no account" in result.stdout
        assert f"webhook retry {SESSION}" in result.stdout
        assert result.exit_code == 1
    [event] = shop.found(PAYMENT)["parked_events"]
    assert (event["event_id"], event["reason"]) == (SESSION, "unknown_user")


def test_settled_sale_resolves_its_parked_event(shop: Shop) -> None:
    shop.deliver(session_event(credits=None))
    sell_long_ago(shop, session_event())
    result = shop.reconcile(PAYMENT)
    assert (result.exit_code, shop.balance(), shop.run("parked").stdout) == (1, 100, "")
    assert "parked as" not in result.stdout


def test_event_parked_without_a_key_is_resolved(shop: Shop) -> None:
    """Its facts were not read, so the sale alone does not resolve it."""
    event = priced_session(40)
    event["data"]["object"]["id"] = SESSION
    query = "select billing.park(%s, %s, 'missing_api_key', %s, %s)"
    shop.admin.execute(query, [event["id"], event["type"], PAYMENT, json.dumps(event)])
    sell_long_ago(shop, event)
    assert named(shop, PAYMENT) == [f"missing {SESSION}"]
    assert (shop.run("parked").stdout, shop.balance()) == ("", 40)


def test_discarded_sale_is_reported(shop: Shop) -> None:
    event = session_event(credits=None)
    shop.deliver(event)
    shop.run("discard", event["id"], "--reason", "a test")
    sell_long_ago(shop, event)
    result = shop.reconcile(PAYMENT)
    assert f"{event['id']}: discarded: run `webhook retry {event['id']}`" in result.stdout
    assert result.exit_code == 1


def test_payment_of_another_product_is_explained(shop: Shop) -> None:
    sell_long_ago(shop, payment_intent_event(id="pi_other", user_id=None, credits=None))
    result = shop.reconcile("pi_other")
    assert result.exit_code == 0
    assert "\npi_other: grants no credits (no_credits)\n" in result.stdout


def test_payment_that_is_not_finished_is_explained(shop: Shop) -> None:
    sell_long_ago(shop, session_event("checkout.session.expired", id="cs_9", payment_intent=None))
    assert shop.found("cs_9")["notes"] == {"cs_9": "not paid: the checkout.session is expired"}


def test_event_about_no_payment_is_explained(shop: Shop) -> None:
    event = recorded("customer.created")
    shop.stripe.objects[event["id"]] = event
    assert shop.found(event["id"])["notes"] == {event["id"]: "grants no credits: no payment belongs to it"}


def test_debit_under_way_is_recorded_as_unpaid(shop: Shop) -> None:
    shop.stripe.add_events(unpaid_session())
    shop.found(PAYMENT)
    assert shop.balance() == 0


# No answer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pi_404", "Stripe does not have it in test mode, in the key's account: check the id and STRIPE_API_KEY"),
        ("evt_404", "Stripe keeps events for 30 days: name the event's object"),
        ("cs_live_1", "it is of live mode: run the command with STRIPE_LIVEMODE and STRIPE_API_KEY of live mode"),
        ("pi_live", "it is of live mode"),
        ("cus_1", "cannot be reconciled: a customer may have many sales"),
        ("sub_1", "cannot be reconciled: a subscription is many sales: name the invoice"),
        ("prod_1", "cannot be reconciled: name a cs_, pi_,"),
        ("hello", "cannot be reconciled: name a cs_, pi_,"),
    ],
)
def test_name_that_cannot_be_read_is_one_line(shop: Shop, name: str, message: str) -> None:
    """The other names are reconciled all the same."""
    live = payment_intent_event(id="pi_live")
    live["data"]["object"]["livemode"] = True
    shop.stripe.add_events(live, session_event())
    result = shop.reconcile(name, PAYMENT)
    [line] = result.stderr.splitlines()
    assert line.startswith(f"webhook: {name}: ")
    assert message in line
    assert (result.exit_code, shop.balance()) == (2, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([PAYMENT, "--since", "1d"], "--since and --until are for runs without an ID"),
        (["pi 1"], "'pi 1' is not an id of Stripe"),
        ([""], "'' is not an id of Stripe"),
    ],
)
def test_wrong_usage_with_names_exits_with_2(shop: Shop, arguments: list[str], message: str) -> None:
    result = shop.reconcile(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_name_without_a_key_is_one_line(shop: Shop) -> None:
    result = shop.reconcile(PAYMENT, STRIPE_API_KEY="")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "STRIPE_API_KEY is not set" in result.stderr


def test_missing_permission_records_nothing(shop: Shop) -> None:
    """Without its disputes, the sale would get too many credits."""
    sell_long_ago(shop, session_event(), DISPUTE)
    shop.stripe.error_status = lambda path, _: 403 if path == "/v1/disputes" else None
    result = shop.reconcile(PAYMENT)
    assert (result.exit_code, shop.balance()) == (2, 0)
    assert "the key lacks a permission: add Checkout Sessions, PaymentIntents," in result.stderr
