"""Lookups at Stripe's API: the requests, the answers, and the errors."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import responses
from responses import matchers

from support.stripe_api import BASE, LINE, LINES, PRICE, SESSION, page
from webhook.events.lookups import ChargeRefunds, InvoiceLines, Price, RelatedObject, SessionLines
from webhook.settings import StripeSettings
from webhook.stripe_api.client import StripeAPI
from webhook.stripe_api.errors import StripeUnavailableError

Mock = responses.RequestsMock


@pytest.fixture
def ask() -> Any:
    return StripeAPI(StripeSettings("rk_test_1")).resolver()


# Questions


def test_question_for_a_sessions_lines_reads_all_pages(ask: Any, stripe_api: Mock) -> None:
    first = matchers.query_param_matcher({"limit": "100"})
    second = matchers.query_param_matcher({"limit": "100", "starting_after": "li_1"})
    stripe_api.get(LINES, json=page({"id": "li_1"}, has_more=True), match=[first])
    stripe_api.get(LINES, json=page({"id": "li_2"}), match=[second])
    assert [line["id"] for line in ask(SessionLines(SESSION))] == ["li_1", "li_2"]


def test_question_for_an_invoices_lines_names_it(ask: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/invoices/in_1/lines", json=page({"id": "il_1"}))
    assert ask(InvoiceLines("in_1")) == [{"id": "il_1"}]


def test_question_for_a_charges_refunds_names_the_charge(ask: Any, stripe_api: Mock) -> None:
    match = [matchers.query_param_matcher({"limit": "100", "charge": "ch_1"})]
    stripe_api.get(f"{BASE}/v1/refunds", json=page({"id": "re_1"}), match=match)
    assert ask(ChargeRefunds("ch_1")) == [{"id": "re_1"}]


def test_question_for_a_price_brings_its_product_and_is_asked_once(ask: Any, stripe_api: Mock) -> None:
    match = [matchers.query_param_matcher({"expand[0]": "product"})]
    stripe_api.get(f"{BASE}/v1/prices/price_1", json=PRICE, match=match)
    assert [ask(Price("price_1")) for _ in range(3)] == [PRICE] * 3
    assert len(stripe_api.calls) == 1


def test_question_for_a_related_object_follows_its_path(ask: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/refunds/re_1", json={"id": "re_1"})
    assert ask(RelatedObject("/v1/refunds/re_1")) == {"id": "re_1"}


def test_question_about_a_connected_account_names_it(stripe_api: Mock) -> None:
    match = [matchers.header_matcher({"Stripe-Account": "acct_1"})]
    stripe_api.get(f"{BASE}/v1/refunds/re_1", json={"id": "re_1"}, match=match)
    StripeAPI(StripeSettings("rk_test_1")).resolver("acct_1")(RelatedObject("/v1/refunds/re_1"))


def test_question_goes_where_the_settings_say(stripe_api: Mock) -> None:
    stripe_api.get("http://127.0.0.1:9/v1/refunds/re_1", json={"id": "re_1"})
    settings = StripeSettings("rk_test_1", "http://127.0.0.1:9")
    assert StripeAPI(settings).resolver()(RelatedObject("/v1/refunds/re_1")) == {"id": "re_1"}


def test_id_with_a_slash_cannot_leave_its_place_in_the_path(ask: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/prices/..%2Fcharges", json=PRICE)
    assert ask(Price("../charges")) == PRICE


@pytest.mark.parametrize("status", [429, 500, 503])
def test_question_refused_once_is_asked_again(ask: Any, stripe_api: Mock, status: int) -> None:
    stripe_api.get(LINES, status=status, json={"error": {"message": "later"}}, headers={"Stripe-Should-Retry": "true"})
    stripe_api.get(LINES, json=page(LINE))
    assert ask(SessionLines(SESSION)) == [LINE]


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 429, "json": {"error": {"message": "later"}}},
        {"status": 500, "json": {"error": {}}},
        {"status": 401, "json": {"error": {"message": "bad key"}}},
        {"status": 403, "json": {"error": {"message": "no right"}}},
        {"status": 404, "json": {"error": {"message": "none", "type": "invalid_request_error"}}},
        {"body": requests.ReadTimeout("secret")},
        {"body": requests.ConnectionError("secret")},
        {"body": "<html>"},
        {"json": []},
        {"json": {"object": "list"}},
        {"json": {"object": "list", "data": [], "has_more": True}},
        {"json": {"object": "list", "data": 5, "has_more": False}},
    ],
)
def test_answer_that_is_none_is_told_without_its_data(ask: Any, stripe_api: Mock, trouble: dict[str, Any]) -> None:
    stripe_api.assert_all_requests_are_fired = False
    stripe_api.get(LINES, **trouble)
    with pytest.raises(StripeUnavailableError) as told:
        ask(SessionLines(SESSION))
    assert "secret" not in str(told.value)
