"""The advice for each parked reason, followed literally: the event is settled afterwards."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.recorded import USER_ID, invoice_event, payment_intent_event, session_event
from support.roles import ALICE, BOB
from support.shop import Shop
from webhook.cli import commands
from webhook.remedies import NO_ACCOUNT, NOT_A_UUID, REMEDIES

UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"
SUBSCRIPTION = invoice_event()["data"]["object"]["parent"]["subscription_details"]["subscription"]
PRICE = invoice_event()["data"]["object"]["lines"]["data"][0]["pricing"]["price_details"]["price"]
EVENT_ID = "evt_parked"
LINE = {"id": "li_1", "object": "item", "quantity": 1, "price": "price_1", "amount_total": 1000}
COMMAND = re.compile(r"`webhook ([^`]+)`")


def session(**fields: Any) -> dict[str, Any]:
    return session_event(event_id=EVENT_ID, id="cs_1", payment_intent="pi_1", **fields)


def priced_session() -> dict[str, Any]:
    event = session(credits=None)
    event["data"]["object"]["line_items"] = {"object": "list", "data": [LINE], "has_more": False}
    return event


def payment(**fields: Any) -> dict[str, Any]:
    return payment_intent_event(event_id=EVENT_ID, id="pi_1", **fields)


def invoice(**fields: Any) -> dict[str, Any]:
    return invoice_event(event_id=EVENT_ID, id="in_1", customer="cus_1", **fields)


def claims() -> list[dict[str, Any]]:
    """Return the sessions of two users who share a customer."""
    name = "checkout.session.completed.subscription"
    return [
        session_event(name, event_id=f"evt_{user}", user_id=user, customer="cus_1", subscription=f"sub_{user}")
        for user in (ALICE, BOB)
    ]


@dataclass
class Case:
    """A parked event, and the correction at Stripe that its advice asks for."""

    event: dict[str, Any]
    corrected: str
    """The id of the object whose metadata is corrected."""
    metadata: dict[str, str]
    before: list[dict[str, Any]] = field(default_factory=list)


USER, CREDITS = {"user_id": USER_ID}, {"credits": "100"}
AT_STRIPE = {
    "missing_user-payment of a session": Case(session(user_id=None), "pi_1", USER),
    "missing_user-session": Case(session(user_id=None), "cs_1", USER | CREDITS),
    "missing_user-payment": Case(payment(user_id=None), "pi_1", USER | CREDITS),
    "missing_user-invoice": Case(invoice(user_id=None), "in_1", USER),
    "missing_user-subscription": Case(invoice(user_id=None), SUBSCRIPTION, USER),
    "ambiguous_customer-subscription": Case(invoice(user_id=None), SUBSCRIPTION, USER, claims()),
    "ambiguous_customer-invoice": Case(invoice(user_id=None), "in_1", USER, claims()),
    "missing_credits-price": Case(priced_session(), "price_1", CREDITS),
    "missing_credits-payment": Case(session(credits=None), "pi_1", CREDITS),
    "missing_credits-subscription": Case(invoice(credits=None), SUBSCRIPTION, CREDITS),
    "missing_credits-invoice": Case(invoice(credits=None), "in_1", CREDITS),
    "invalid_credits-payment of a session": Case(session(credits="ten"), "pi_1", CREDITS),
    "invalid_credits-payment": Case(payment(credits="ten"), "pi_1", USER | CREDITS),
    "invalid_credits-subscription": Case(invoice(credits="ten"), SUBSCRIPTION, CREDITS),
    "unknown_user-not a UUID": Case(session(user_id="order_1234"), "pi_1", USER),
    "unknown_user-subscription": Case(invoice(user_id="42"), SUBSCRIPTION, USER),
    "unknown_user-another user": Case(payment(user_id=UNKNOWN_USER), "pi_1", USER | CREDITS),
}


def reason_of(name: str) -> str:
    return name.partition("-")[0]


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """A shop with three users, whose subscription and price name nothing."""
    shop.sign_up(ALICE, BOB)
    for kind, object_id in (("subscription", SUBSCRIPTION), ("price", "price_1")):
        shop.stripe.objects[object_id] = {"id": object_id, "object": kind, "metadata": {}, "created": 0}
    return shop


def parked(shop: Shop, event: dict[str, Any], reason: str, *before: dict[str, Any]) -> str:
    """Let the event happen, and return the advice for it."""
    shop.deliver(*before)
    shop.stripe.add_events(event)
    shop.deliver(event)
    [line] = shop.run("parked", event["id"], "--json").stdout.splitlines()
    shown = json.loads(line)
    assert shown["reason"] == reason
    return str(shown["what_to_do"])


def commands_in(advice: str) -> dict[str, list[str]]:
    """Return the words of each command that the advice names, by the command's name."""
    values = {"UUID": USER_ID, "N": "100", "TEXT": "checked"}
    lines = [[values.get(word, word) for word in command.split()] for command in COMMAND.findall(advice)]
    return {line[0]: line for line in lines}


def assert_settled(shop: Shop, user_id: str = USER_ID) -> None:
    assert (shop.run("parked").stdout, shop.balance(user_id)) == ("", 100)


def test_advice_is_tested_for_each_reason() -> None:
    tested = set(map(reason_of, AT_STRIPE))
    assert tested | {"wrong_mode", "unreadable", "missing_api_key", "missing_object"} == set(REMEDIES)


@pytest.mark.parametrize("name", AT_STRIPE)
def test_event_corrected_at_stripe_is_settled_by_retry(shop: Shop, name: str) -> None:
    case = AT_STRIPE[name]
    advice = parked(shop, case.event, reason_of(name), *case.before)
    shop.stripe.objects[case.corrected].setdefault("metadata", {}).update(case.metadata)
    result = shop.run(*commands_in(advice)["retry"])
    assert (result.exit_code, result.stdout) == (0, f"{EVENT_ID}\trecorded\n")
    assert_settled(shop)


@pytest.mark.parametrize("name", AT_STRIPE)
def test_event_not_corrected_stays_parked(shop: Shop, name: str) -> None:
    """A retry changes neither the reason nor the payload."""
    case = AT_STRIPE[name]
    advice = parked(shop, case.event, reason_of(name), *case.before)
    before = shop.run("parked", "--json").stdout
    assert shop.run(*commands_in(advice)["retry"]).exit_code == 1
    age = re.compile(r'"age_seconds": \d+')
    assert age.sub("", shop.run("parked", "--json").stdout) == age.sub("", before)


def test_unknown_user_after_the_sign_up_is_settled_by_retry(shop: Shop) -> None:
    advice = parked(shop, session(user_id=UNKNOWN_USER), "unknown_user")
    assert "create the account" in advice
    shop.sign_up(UNKNOWN_USER)
    assert shop.run(*commands_in(advice)["retry"]).exit_code == 0
    assert_settled(shop, UNKNOWN_USER)


@pytest.mark.parametrize(("user_id", "says"), [("order_1234", "is not a UUID"), (UNKNOWN_USER, "has no account")])
def test_advice_for_an_unknown_user_names_the_cause(shop: Shop, user_id: str, says: str) -> None:
    assert says in parked(shop, session(user_id=user_id), "unknown_user")


def test_wrong_mode_is_settled_after_the_setting_is_corrected(shop: Shop) -> None:
    advice = parked(shop, session() | {"livemode": True}, "wrong_mode")
    live = {"STRIPE_LIVEMODE": "true", "STRIPE_API_KEY": "rk_live_1"}
    assert shop.run(*commands_in(advice)["retry"], **live).exit_code == 0
    assert_settled(shop)


def test_wrong_mode_of_another_endpoint_is_discarded(shop: Shop) -> None:
    advice = parked(shop, session() | {"livemode": True}, "wrong_mode")
    assert shop.run(*commands_in(advice)["discard"]).exit_code == 0
    assert shop.run("parked").stdout == ""


def test_unreadable_event_is_settled_after_an_upgrade(shop: Shop) -> None:
    """An older version could not read the currency."""
    event = session(currency=None)
    advice = parked(shop, event, "unreadable")
    query = "update billing.parked_events set payload = %s"
    shop.admin.execute(query, [json.dumps(session())])
    assert shop.run(*commands_in(advice)["retry"]).exit_code == 0
    assert_settled(shop)


def thin() -> dict[str, Any]:
    related = {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"}
    return {"id": EVENT_ID, "object": "v2.core.event", "type": "v1.payment_intent.succeeded", "livemode": False} | {
        "related_object": related
    }


def test_missing_api_key_is_settled_with_a_key(shop: Shop) -> None:
    shop.stripe.add_events(payment())
    shop.deliver(thin())
    advice = json.loads(shop.run("parked", EVENT_ID, "--json").stdout)["what_to_do"]
    assert shop.run(*commands_in(advice)["retry"]).exit_code == 0
    assert_settled(shop)


@pytest.fixture
def missing_object(shop: Shop) -> str:
    """Park a thin event for a key of another account, and return the advice for it."""
    shop.deliver(thin())
    shop.run("retry")
    shown = json.loads(shop.run("parked", EVENT_ID, "--json").stdout)
    assert shown["reason"] == "missing_object"
    return str(shown["what_to_do"])


def test_missing_object_is_settled_with_the_right_key(shop: Shop, missing_object: str) -> None:
    shop.stripe.add_events(payment())
    assert shop.run(*commands_in(missing_object)["retry"]).exit_code == 0
    assert_settled(shop)


def test_missing_object_that_was_deleted_is_discarded(shop: Shop, missing_object: str) -> None:
    assert shop.run(*commands_in(missing_object)["discard"]).exit_code == 0
    assert shop.run("parked").stdout == ""


@pytest.mark.parametrize("corrected", ["in_1", SUBSCRIPTION])
def test_sale_that_became_ambiguous_is_settled_by_retry(shop: Shop, corrected: str) -> None:
    """Its event was settled and its payload dropped, so its invoice is read from Stripe."""
    event, (first, second) = invoice(user_id=None), claims()
    shop.stripe.add_events(event)
    shop.deliver(first, event, second)
    shown = json.loads(shop.run("parked", "in_1", "--json").stdout)
    assert (shown["event_id"], shown["reason"]) == ("in_1", "ambiguous_customer")
    shop.stripe.objects[corrected]["metadata"] = USER
    result = shop.run(*commands_in(shown["what_to_do"])["retry"])
    assert (result.exit_code, result.stdout) == (0, "in_1\trecorded\n")
    assert_settled(shop)
    assert (shop.balance(ALICE), shop.balance(BOB)) == (0, 0)


def test_ambiguous_sale_unknown_to_stripe_stays_parked(shop: Shop) -> None:
    first, second = claims()
    shop.deliver(first, invoice(user_id=None), second)
    note = "ambiguous_customer: Stripe does not have in_1 any more"
    assert shop.run("retry").stdout == f"in_1\tparked\t{note}\n"


def test_retry_without_a_key_says_what_a_key_adds(shop: Shop) -> None:
    parked(shop, session(user_id=None), "missing_user")
    result = shop.run("retry", STRIPE_API_KEY="", STRIPE_LIVEMODE="false")
    assert (result.exit_code, result.stdout) == (1, f"{EVENT_ID}\tparked\tmissing_user\n")
    assert "Without STRIPE_API_KEY, corrections of metadata and prices at Stripe are not read." in result.stderr


def test_retry_of_a_deleted_object_keeps_the_reason(shop: Shop) -> None:
    parked(shop, invoice(user_id=None), "missing_user")
    del shop.stripe.objects[SUBSCRIPTION]
    note = f"missing_user: Stripe does not have {SUBSCRIPTION} any more"
    assert shop.run("retry").stdout == f"{EVENT_ID}\tparked\t{note}\n"
    assert shop.run("parked").stdout.startswith(f"{EVENT_ID}\tmissing_user\t")


def test_retry_with_stripe_down_keeps_the_event(shop: Shop) -> None:
    parked(shop, session(user_id=None), "missing_user")
    shop.stripe.error_status = lambda path, number: 500  # noqa: ARG005
    result = shop.run("retry")
    assert (result.exit_code, result.stdout) == (2, f"{EVENT_ID}\tparked\tmissing_user\n")
    assert shop.run("parked").stdout.startswith(f"{EVENT_ID}\tmissing_user\t")


def test_retry_without_a_permission_names_it(shop: Shop) -> None:
    parked(shop, invoice(user_id=None), "missing_user")
    shop.stripe.error_status = lambda path, number: 403 if "subscriptions" in path else None  # noqa: ARG005
    result = shop.run("retry")
    hint = "the key lacks a permission: add Checkout Sessions, PaymentIntents, Invoices and Subscriptions: Read"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"webhook: {hint}")


ASSIGNED = {
    "missing_user-session": Case(session(user_id=None), "", {}),
    "missing_user-invoice": Case(invoice(user_id=None), "", {}),
    "ambiguous_customer-invoice": Case(invoice(user_id=None), "", {}, claims()),
    "missing_credits-session": Case(session(credits=None), "", {}),
    "missing_credits-invoice": Case(invoice(credits=None), "", {}),
    "invalid_credits-session": Case(session(credits="ten"), "", {}),
    "invalid_credits-payment": Case(payment(credits="ten"), "", {}),
    "unknown_user-not a UUID": Case(session(user_id="order_1234"), "", {}),
    "unknown_user-no account": Case(payment(user_id=UNKNOWN_USER), "", {}),
}


@pytest.mark.parametrize("at_stripe", ["no key", "no price", "a price without credits"])
@pytest.mark.parametrize("name", ASSIGNED)
def test_event_is_settled_by_assign(shop: Shop, name: str, at_stripe: str) -> None:
    """It is the general way, whatever Stripe knows."""
    case = ASSIGNED[name]
    advice = parked(shop, case.event, reason_of(name), *case.before)
    if at_stripe == "a price without credits":
        shop.stripe.objects[PRICE] = {"id": PRICE, "object": "price", "metadata": {}, "created": 0}
    environment = {"STRIPE_API_KEY": "", "STRIPE_LIVEMODE": "false"} if at_stripe == "no key" else {}
    result = shop.run(*commands_in(advice)["assign"], **environment)
    assert result.exit_code == 0, result.output
    assert_settled(shop)


def test_sale_that_became_ambiguous_is_settled_by_assign(shop: Shop) -> None:
    event, (first, second) = invoice(user_id=None), claims()
    shop.deliver(first, event, second)
    advice = json.loads(shop.run("parked", "in_1", "--json").stdout)["what_to_do"]
    assert shop.run(*commands_in(advice)["assign"]).exit_code == 0
    assert_settled(shop)


@pytest.mark.parametrize("text", [*REMEDIES.values(), NOT_A_UUID, NO_ACCOUNT])
def test_commands_of_an_advice_exist_with_their_options(text: str) -> None:
    for name, words in commands_in(text).items():
        options = {option for each in commands.commands[name].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= options
