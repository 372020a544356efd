"""Credits from the prices of line items and invoices, without a database and with given lookup results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.recorded import USER_ID, VERSIONS, invoice_event, invoice_payment_event, recorded, session_event
from webhook.events.event import EventScope, read_event
from webhook.events.facts import (
    INVOICE,
    INVOICE_METADATA,
    ONE_TIME_PAYMENT,
    SESSION,
    Claim,
    Facts,
    Ignored,
    Interpretation,
    Link,
    Sale,
    Unresolvable,
)
from webhook.events.interpret import interpret
from webhook.events.lookups import InvoiceLines, Lookup, Price, SessionLines

SESSION_ID = session_event()["data"]["object"]["id"]
WITHOUT_CREDITS = session_event(credits=None)

OTHER_USER = "00000000-0000-4000-8000-000000000000"

LookupResults = Mapping[Lookup, Any]


def interpreted(event: dict[str, Any], results: LookupResults | None) -> Interpretation:
    """Interpret the event with these lookup results; ``None`` means that there is no API key."""
    resolve = (lambda _: None) if results is None else results.__getitem__
    return interpret(read_event(json.dumps(event)), EventScope(livemode=False), resolve)


def sale_of(event: dict[str, Any], results: LookupResults | None = None) -> Sale:
    interpretation = interpreted(event, results)
    assert isinstance(interpretation, Facts), interpretation
    return next(fact for fact in interpretation.facts if isinstance(fact, Sale))


def price(credits: Any = None, product: Any = "prod_1", price_id: str = "price_1") -> dict[str, Any]:  # noqa: A002
    return {"id": price_id, "object": "price", "metadata": metadata(credits), "product": product}


def product(credits: Any = None) -> dict[str, Any]:  # noqa: A002
    return {"id": "prod_1", "object": "product", "metadata": metadata(credits)}


def metadata(credits: Any) -> dict[str, str]:  # noqa: A002
    return {} if credits is None else {"credits": credits}


def item(price: Any, quantity: int | None = 1, **fields: Any) -> dict[str, Any]:
    """A line item of a session."""
    return {"id": "li_1", "object": "item", "amount_total": 1000, "price": price, "quantity": quantity} | fields


def lines(*items: Any) -> LookupResults:
    """Return the lookup results for these line items; the products of the other prices have no credits."""
    without_credits = {
        Price(f"price_{number}"): price(product=product(), price_id=f"price_{number}") for number in range(9)
    }
    return {SessionLines(SESSION_ID): list(items), **without_credits}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([item(price("100"))], 100),
        ([item(price("100"), quantity=3)], 300),
        ([item(price("100")), item(price("50"), quantity=2)], 200),
        ([item(price("100")), item(price())], 100),
        ([item(price("100"), quantity=None)], 100),
        ([item(price("100"), amount_total=0)], 100),
        ([item(price("100")), item(price("50"), amount_total=-500)], 100),
        ([item(price("0")), item(price("50"))], 50),
    ],
)
def test_session_credits_are_price_credits_times_quantity(items: list[Any], expected: int) -> None:
    assert sale_of(WITHOUT_CREDITS, lines(*items)).credits == expected


def test_session_price_without_credits_uses_its_product() -> None:
    results = {SessionLines(SESSION_ID): [item(price(), 2)], Price("price_1"): price(product=product("70"))}
    assert sale_of(WITHOUT_CREDITS, results).credits == 140


def test_session_with_its_own_credits_needs_no_lookup() -> None:
    assert sale_of(session_event(), {}).credits == 100


def test_session_with_prices_only_is_a_sale_without_a_user() -> None:
    sale = sale_of(session_event(credits=None, user_id=None, customer=None), lines(item(price("5"))))
    assert (sale.user_id, sale.credits, sale.version) == (None, 5, SESSION)


def test_session_with_prices_of_zero_credits_is_ignored() -> None:
    assert interpreted(WITHOUT_CREDITS, lines(item(price("0")))) == Ignored("zero_credits")


def test_session_without_price_credits_lacks_credits() -> None:
    assert sale_of(WITHOUT_CREDITS, lines(item(price()))).credits is None


def test_session_without_price_credits_and_user_is_ignored() -> None:
    event = session_event(credits=None, user_id=None)
    assert interpreted(event, lines(item(price()))) == Ignored("no_credits")


def test_session_without_api_key_and_user_is_ignored() -> None:
    """Without an API key, no prices can be looked up."""
    assert interpreted(session_event(credits=None, user_id=None), None) == Ignored("no_credits")


@pytest.mark.parametrize("credits", ["-5", "1.5", "ten", "", "1000000001"])
def test_session_with_malformed_price_credits_is_invalid(credits: str) -> None:  # noqa: A002
    interpretation = interpreted(WITHOUT_CREDITS, lines(item(price("5")), item(price(credits))))
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == "invalid_credits"


def test_session_with_a_sum_over_the_limit_is_invalid() -> None:
    interpretation = interpreted(WITHOUT_CREDITS, lines(item(price("500000001"), 2)))
    assert isinstance(interpretation, Unresolvable)
    assert interpretation.reason == "invalid_credits"


@pytest.mark.parametrize("items", [[None], [item(price("5"), quantity=-1)], [item({"metadata": []})], [item(5)]])
def test_session_with_malformed_line_items_is_unreadable(items: list[Any]) -> None:
    assert interpreted(WITHOUT_CREDITS, lines(*items)) == Unresolvable("unreadable")


# Recorded sessions


def test_payment_link_session_has_a_user_and_credits() -> None:
    """Credits come from the link's metadata, and the user from its `client_reference_id`."""
    sale = sale_of(recorded("checkout.session.completed.payment_link"))
    assert (sale.user_id, sale.credits) == (USER_ID, 100)


def test_line_items_session_sells_the_credits_of_its_prices() -> None:
    event = recorded("checkout.session.completed.line_items")
    results = {SessionLines(event["data"]["object"]["id"]): [item(price("100"), 2)]}
    assert sale_of(event, results).credits == 200


def test_zero_decimal_currency_session_keeps_its_amount() -> None:
    sale = sale_of(recorded("checkout.session.completed.zero_decimal"))
    assert (sale.money_amount, sale.currency) == (1500, "jpy")


def test_adaptive_pricing_session_uses_its_own_currency() -> None:
    """The currency shown to the buyer does not matter."""
    sale = sale_of(recorded("checkout.session.completed.adaptive_pricing"))
    assert (sale.money_amount, sale.currency) == (1000, "usd")


# Invoices

INVOICE_ID = invoice_event()["data"]["object"]["id"]


def invoice_line(price_id: str, quantity: int = 1) -> dict[str, Any]:
    [line, *_] = invoice_event()["data"]["object"]["lines"]["data"]
    return line | {
        "quantity": quantity,
        "pricing": {"type": "price_details", "price_details": {"price": price_id, "product": "prod_1"}},
    }


def invoice_of(*items: Any, has_more: bool = False, **fields: Any) -> dict[str, Any]:
    listed = invoice_event()["data"]["object"]["lines"] | {"data": list(items), "has_more": has_more}
    return invoice_event(credits=None, lines=listed, **fields)


PRICES: LookupResults = {Price("price_1"): price("100"), Price("price_2"): price("7")}


@pytest.mark.parametrize("version", VERSIONS)
def test_invoice_of_a_subscription_is_a_paid_sale(version: str) -> None:
    event = recorded("invoice.paid", version)
    invoice_id = event["data"]["object"]["id"]
    sale = sale_of(event)
    assert (sale.payment_id, sale.version, sale.user_id, sale.credits) == (invoice_id, INVOICE, USER_ID, 100)
    assert (sale.money_amount, sale.currency, sale.paid) == (1000, "usd", True)


def test_invoice_of_an_older_api_version_links_its_payment() -> None:
    event = recorded("invoice.paid", VERSIONS[0])
    invoice = event["data"]["object"]
    interpretation = interpreted(event, None)
    assert isinstance(interpretation, Facts)
    assert interpretation.facts[0] == Link(invoice["id"], invoice["id"], invoice["payment_intent"])


def test_invoice_of_an_older_api_version_contains_its_prices() -> None:
    """Their credits need no lookup."""
    event = recorded("invoice.paid", VERSIONS[0])
    event["data"]["object"]["subscription_details"]["metadata"].pop("credits")
    assert sale_of(event, None).credits == 100


def test_invoice_sells_the_credits_of_its_prices() -> None:
    assert sale_of(invoice_of(invoice_line("price_1", 2), invoice_line("price_2")), PRICES).credits == 207


def test_invoice_with_further_lines_looks_up_all_of_them() -> None:
    all_lines = [invoice_line("price_2")] * 12
    event = invoice_of(*all_lines[:10], has_more=True)
    assert sale_of(event, {InvoiceLines(INVOICE_ID): all_lines, **PRICES}).credits == 84


def test_invoice_with_further_lines_needs_an_api_key() -> None:
    """The lines in the event may be only a part of what was paid."""
    line = invoice_line("price_2") | {"price": price(credits="7")}
    assert sale_of(invoice_of(line), None).credits == 7
    assert interpreted(invoice_of(line, has_more=True), None) == Unresolvable("missing_api_key", INVOICE_ID)


def test_invoice_with_its_own_credits_is_a_sale() -> None:
    """The billing reason does not matter."""
    event = invoice_event(billing_reason="manual", metadata={"credits": "30", "user_id": USER_ID})
    assert sale_of(event).credits == 30


def test_invoice_without_any_credits_is_ignored() -> None:
    results = {Price("price_1"): price(product=product())}
    assert interpreted(invoice_of(invoice_line("price_1")), results) == Ignored("no_credits")


def test_invoice_without_an_api_key_lacks_credits() -> None:
    assert sale_of(invoice_of(invoice_line("price_1")), None).credits is None


def test_invoice_without_api_key_and_user_is_ignored() -> None:
    event = invoice_of(invoice_line("price_1"))
    event["data"]["object"]["parent"]["subscription_details"]["metadata"] = {}
    assert interpreted(event, None) == Ignored("no_credits")


def test_invoice_without_a_user_belongs_to_its_customer() -> None:
    sale = sale_of(invoice_event(user_id=None, customer="cus_1"))
    assert (sale.user_id, sale.customer_id) == (None, "cus_1")


def claims_of(event: dict[str, Any]) -> list[Claim]:
    interpretation = interpreted(event, None)
    assert isinstance(interpretation, Facts)
    return [fact for fact in interpretation.facts if isinstance(fact, Claim)]


@pytest.mark.parametrize("version", VERSIONS)
def test_invoice_claims_its_subscription_for_the_user(version: str) -> None:
    """The subscription and its metadata stand in different places before and since basil."""
    event = recorded("invoice.paid", version)
    source = event["data"]["object"]
    details = (source.get("parent") or source)["subscription_details"]
    details["metadata"] = {"user_id": USER_ID, "credits": "100"}
    subscription = details.get("subscription") or source["subscription"]
    [claim] = claims_of(event)
    assert claim == Claim(subscription, source["customer"], USER_ID, INVOICE_METADATA, source["created"])


@pytest.mark.parametrize("version", VERSIONS)
def test_invoice_without_a_user_names_its_subscription(version: str) -> None:
    event = recorded("invoice.paid", version)
    source = event["data"]["object"]
    details = (source.get("parent") or source)["subscription_details"]
    details["metadata"] = {"credits": "100"}
    subscription = details.get("subscription") or source["subscription"]
    assert (sale_of(event).subscription_id, claims_of(event)) == (subscription, [])


def test_invoice_for_another_receiver_claims_for_its_subscriptions_user() -> None:
    """An invoice's own metadata names who receives its credits. The snapshot names whose subscription it is."""
    event = invoice_event()
    event["data"]["object"]["metadata"] = {"user_id": OTHER_USER}
    [claim] = claims_of(event)
    assert (sale_of(event).user_id, claim.user_id) == (OTHER_USER, USER_ID)


def test_invoice_without_a_subscription_claims_its_customer() -> None:
    event = invoice_event(customer="cus_1")
    event["data"]["object"]["parent"] = None
    event["data"]["object"]["metadata"] = {"user_id": USER_ID, "credits": "100"}
    assert claims_of(event) == [Claim(None, "cus_1", USER_ID, ONE_TIME_PAYMENT)]


def test_invoice_payment_links_its_payment_to_the_invoice() -> None:
    event = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_1")
    assert interpreted(event, None) == Facts((Link("inpay_1", "in_1", "pi_1"),))


def test_invoice_payment_without_a_payment_intent_is_ignored() -> None:
    event = invoice_payment_event(payment={"type": "charge", "charge": "ch_1"})
    assert interpreted(event, None) == Ignored("no_payment")
