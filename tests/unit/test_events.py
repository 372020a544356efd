"""Checkout Sessions and PaymentIntents are interpreted as facts, without a database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.recorded import USER_ID, VERSIONS, payment_intent_event, recorded, session_event
from webhook.events.event import EventScope, read_event
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
from webhook.events.interpret import interpret

TEST_MODE = EventScope(livemode=False)
OTHER_USER = "00000000-0000-4000-8000-000000000000"


def interpreted(event: dict[str, Any], scope: EventScope = TEST_MODE) -> Interpretation:
    return interpret(read_event(json.dumps(event)), scope)


def sale_of(event: dict[str, Any]) -> Sale:
    interpretation = interpreted(event)
    assert isinstance(interpretation, Facts)
    [sale] = [fact for fact in interpretation.facts if isinstance(fact, Sale)]
    return sale


@pytest.mark.parametrize("version", VERSIONS)
def test_session_paid_by_card_is_a_paid_sale(version: str) -> None:
    event = recorded("checkout.session.completed", version)
    payment_id = event["data"]["object"]["payment_intent"]
    assert sale_of(event) == Sale(payment_id, SESSION, USER_ID, 100, 1000, "usd", paid=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_session_after_a_delayed_payment_is_a_paid_sale(version: str) -> None:
    assert sale_of(recorded("checkout.session.async_payment_succeeded", version)).paid


@pytest.mark.parametrize("version", VERSIONS)
def test_payment_intent_with_credits_is_a_paid_sale(version: str) -> None:
    event = recorded("payment_intent.succeeded", version)
    payment_id = event["data"]["object"]["id"]
    assert sale_of(event) == Sale(payment_id, PAYMENT_INTENT, USER_ID, 100, 1000, "usd", paid=True)


def test_session_with_a_delayed_payment_method_is_unpaid() -> None:
    assert not sale_of(recorded("checkout.session.completed.unpaid")).paid


def test_session_without_a_payment_is_a_paid_sale() -> None:
    """Its payment id is the session's own id."""
    event = recorded("checkout.session.completed.no_payment_required")
    sale = sale_of(event)
    assert (sale.payment_id, sale.money_amount, sale.paid) == (event["data"]["object"]["id"], 0, True)


def test_session_with_a_total_but_no_payment_is_unpaid() -> None:
    """`no_payment_required` means paid only if the total is 0."""
    assert not sale_of(session_event(payment_status="no_payment_required")).paid


def test_session_money_is_the_total_after_tax_and_discount() -> None:
    assert sale_of(session_event(amount_subtotal=1000, amount_total=890)).money_amount == 890


def test_session_with_an_invoice_links_it_before_the_sale() -> None:
    event = session_event(invoice="in_1SaleInvoice")
    session = event["data"]["object"]
    interpretation = interpreted(event)
    assert isinstance(interpretation, Facts)
    assert interpretation.facts[0] == Link(session["id"], "in_1SaleInvoice", session["payment_intent"])


def test_session_metadata_user_overrides_client_reference_id() -> None:
    other = "00000000-0000-4000-8000-000000000000"
    assert sale_of(session_event(client_reference_id=other)).user_id == USER_ID


def test_session_without_metadata_user_uses_client_reference() -> None:
    assert sale_of(session_event(user_id=None, client_reference_id=USER_ID)).user_id == USER_ID


def test_session_user_id_in_upper_case_is_accepted() -> None:
    assert sale_of(session_event(user_id=USER_ID.upper())).user_id == USER_ID.upper()


def test_session_in_setup_mode_is_ignored() -> None:
    assert interpreted(recorded("checkout.session.completed.setup")) == Ignored("no_payment")


def subscription_session(**fields: Any) -> dict[str, Any]:
    name = "checkout.session.completed.subscription"
    return session_event(name, subscription="sub_1", customer="cus_1", **fields)


def claims_of(event: dict[str, Any]) -> set[tuple[str, int]]:
    """Return users and levels of the event's claims."""
    interpretation = interpreted(event)
    assert isinstance(interpretation, Facts)
    return {(fact.user_id, fact.level) for fact in interpretation.facts if isinstance(fact, Claim)}


def test_subscription_session_claims_its_subscription() -> None:
    """The reference is a claim of its own, and weaker than the metadata."""
    event = subscription_session(user_id=USER_ID, client_reference_id=OTHER_USER)
    assert interpreted(event) == Facts(
        (
            Claim("sub_1", "cus_1", USER_ID, SESSION_METADATA),
            Claim("sub_1", "cus_1", OTHER_USER, SESSION_REFERENCE),
        )
    )


@pytest.mark.parametrize("reference", ["order_1234", "42", ""])
def test_reference_that_is_no_uuid_claims_no_subscription(reference: str) -> None:
    assert interpreted(subscription_session(user_id=None, client_reference_id=reference)) == Ignored("no_payment")
    assert claims_of(subscription_session(client_reference_id=reference)) == {(USER_ID, SESSION_METADATA)}


def test_subscription_session_without_a_user_is_ignored() -> None:
    event = session_event("checkout.session.completed.subscription", user_id=None)
    assert interpreted(event) == Ignored("no_payment")


@pytest.mark.parametrize("reference", [None, USER_ID.upper(), "order_1234"])
def test_paid_session_claims_its_customer(reference: str | None) -> None:
    assert claims_of(session_event(customer="cus_1", client_reference_id=reference)) == {(USER_ID, ONE_TIME_SALE)}


def test_unpaid_session_claims_nothing() -> None:
    assert claims_of(session_event("checkout.session.completed.unpaid", customer="cus_1")) == set()


@pytest.mark.parametrize("name", ["checkout.session.completed", "checkout.session.completed.unpaid"])
def test_gift_cancels_its_receivers_claims(name: str) -> None:
    """The PaymentIntent of the gift names the receiver, too, and not the payer."""
    assert claims_of(session_event(name, customer="cus_1", client_reference_id=OTHER_USER)) == {(USER_ID, GIFT)}
    assert claims_of(payment_intent_event(customer="cus_1")) == {(USER_ID, ONE_TIME_PAYMENT)}


def test_session_without_a_user_belongs_to_its_customer() -> None:
    sale = sale_of(session_event(user_id=None, customer="cus_1"))
    assert (sale.user_id, sale.customer_id) == (None, "cus_1")


@pytest.mark.parametrize("reference", [None, "order_1234", "42"])
def test_session_without_credits_and_a_uuid_is_ignored(reference: str | None) -> None:
    """Another product's session names its own orders and users."""
    assert interpreted(session_event(user_id=reference, credits=None)) == Ignored("no_credits")


def test_manual_capture_with_another_products_user_is_kept() -> None:
    """Its session may sell credits, and no other event reports the captured money."""
    sale = sale_of(payment_intent_event("payment_intent.succeeded.manual_capture", user_id="42"))
    assert (sale.user_id, sale.credits, sale.paid) == (None, None, True)


@pytest.mark.parametrize("event", [session_event(credits=0), payment_intent_event(credits="00")])
def test_sale_of_zero_credits_is_ignored(event: dict[str, Any]) -> None:
    assert interpreted(event) == Ignored("zero_credits")


def test_session_with_a_user_only_is_a_sale_without_credits() -> None:
    assert sale_of(session_event(credits=None)).credits is None


def test_payment_intent_without_credits_is_ignored() -> None:
    assert interpreted(payment_intent_event(credits=None)) == Ignored("no_credits")


def test_manual_capture_reports_the_amount_received() -> None:
    event = recorded("payment_intent.succeeded.manual_capture")
    payment_id = event["data"]["object"]["id"]
    assert sale_of(event) == Sale(payment_id, PAYMENT_INTENT, None, None, 600, "usd", paid=True)


def test_manual_capture_of_cards_only_reports_the_amount() -> None:
    """`capture_method` can be set for one payment method only."""
    options = {"card": {"capture_method": "manual"}, "link": {}}
    sale = sale_of(payment_intent_event(credits=None, payment_method_options=options, amount_received=600))
    assert (sale.credits, sale.money_amount) == (None, 600)


@pytest.mark.parametrize("credits", ["-5", "1.5", "ten", "", "1e3", "+5", " 5", "٣", "1000000001", "9" * 20, "\x00"])
@pytest.mark.parametrize("build", [session_event, payment_intent_event])
def test_credits_that_are_malformed_or_too_large_are_invalid(build: Any, credits: str) -> None:  # noqa: A002
    """Valid credits are ASCII digits and at most 1,000,000,000."""
    interpretation = interpreted(build(credits=credits))
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == "invalid_credits"


@pytest.mark.parametrize("credits", [-5, 1.5, True, [], {}])
def test_credits_that_are_not_a_string_are_invalid(credits: Any) -> None:  # noqa: A002
    event = session_event()
    event["data"]["object"]["metadata"]["credits"] = credits
    interpretation = interpreted(event)
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == "invalid_credits"


@pytest.mark.parametrize("credits", ["1", "1000000000", "007"])
def test_credits_within_the_limit_are_parsed_as_a_number(credits: str) -> None:  # noqa: A002
    assert sale_of(session_event(credits=credits)).credits == int(credits)


@pytest.mark.parametrize("user_id", ["42", "\x00", "\ud800", f"{{{USER_ID}}}", f"{USER_ID} ", USER_ID.replace("-", "")])
@pytest.mark.parametrize("build", [session_event, payment_intent_event])
def test_user_id_that_is_not_a_uuid_is_unknown(build: Any, user_id: str) -> None:
    interpretation = interpreted(build(user_id=user_id))
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == "unknown_user"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"user_id": None, "credits": "-5"}, "missing_user"),
        ({"user_id": "42", "credits": "-5"}, "invalid_credits"),
    ],
)
def test_sale_with_several_problems_reports_the_first(metadata: dict[str, Any], reason: str) -> None:
    interpretation = interpreted(session_event(**metadata))
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == reason


@pytest.mark.parametrize(
    "fields",
    [
        {"payment_intent": 1},
        {"payment_intent": "pi_\x00"},
        {"payment_intent": "pi_\ud800"},
        {"payment_intent": "p" * 256},
        {"payment_intent": {"object": "payment_intent", "id": 1}},
        {"amount_total": None},
        {"amount_total": -1},
        {"amount_total": True},
        {"amount_total": "1000"},
        {"amount_total": 10**30},
        {"currency": None},
        {"currency": "\x00"},
        {"payment_status": ["paid"]},
        {"invoice": 5},
        {"metadata": [], "client_reference_id": USER_ID},
    ],
)
def test_session_with_an_unexpected_field_value_is_unreadable(fields: dict[str, Any]) -> None:
    assert interpreted(merged(session_event(), fields)) == Unresolvable("unreadable")


def merged(event: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the event with these fields of its object replaced, without the builders' checks."""
    return event | {"data": {"object": event["data"]["object"] | fields}}


@pytest.mark.parametrize("fields", [{"mode": []}, {"mode": {}}, {"capture_method": {}}])
def test_session_with_an_unhashable_field_is_interpreted(fields: dict[str, Any]) -> None:
    assert isinstance(interpreted(merged(session_event(), fields)), Facts)


def test_session_with_an_expanded_payment_intent_is_read() -> None:
    assert sale_of(merged(session_event(), {"payment_intent": {"id": "pi_1"}})).payment_id == "pi_1"


@pytest.mark.parametrize(
    "name",
    [
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "customer.created",
        "product.created",
    ],
)
def test_event_of_an_unhandled_type_is_ignored(name: str) -> None:
    assert interpreted(recorded(name)) == Ignored("event_type")


@pytest.mark.parametrize(
    "event", [session_event(), session_event(credits=None), session_event(credits="-1"), payment_intent_event()]
)
def test_sale_of_the_other_mode_is_wrong_mode(event: dict[str, Any]) -> None:
    sold = event["data"]["object"]
    payment_id = sold.get("payment_intent") or sold["id"]
    assert interpreted(event, EventScope(livemode=True)) == Unresolvable("wrong_mode", payment_id)


def test_unhandled_event_of_the_other_mode_is_ignored() -> None:
    assert interpreted(recorded("customer.created"), EventScope(livemode=True)) == Ignored("event_type")


def test_event_of_an_unlisted_connected_account_is_ignored() -> None:
    assert interpreted(session_event() | {"account": "acct_1"}) == Ignored("connected_account")


def test_event_of_a_listed_connected_account_is_interpreted() -> None:
    scope = EventScope(livemode=False, accounts=frozenset({"acct_1"}))
    assert isinstance(interpreted(session_event() | {"account": "acct_1"}, scope), Facts)


@pytest.mark.parametrize("envelope", [{"livemode": "yes"}, {"livemode": []}, {"account": {}}, {"account": 7}])
def test_sale_with_an_unexpected_envelope_is_unreadable(envelope: dict[str, Any]) -> None:
    assert interpreted(session_event() | envelope) == Unresolvable("unreadable")
