"""Lookups at Stripe's API: requests, responses and errors."""

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
def resolve() -> Any:
    return StripeAPI(StripeSettings("rk_test_1")).resolver()


# Lookups


def test_session_lines_lookup_reads_all_pages(resolve: Any, stripe_api: Mock) -> None:
    first = matchers.query_param_matcher({"limit": "100"})
    second = matchers.query_param_matcher({"limit": "100", "starting_after": "li_1"})
    stripe_api.get(LINES, json=page({"id": "li_1"}, has_more=True), match=[first])
    stripe_api.get(LINES, json=page({"id": "li_2"}), match=[second])
    assert [line["id"] for line in resolve(SessionLines(SESSION))] == ["li_1", "li_2"]


def test_invoice_lines_lookup_requests_the_invoices_lines(resolve: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/invoices/in_1/lines", json=page({"id": "il_1"}))
    assert resolve(InvoiceLines("in_1")) == [{"id": "il_1"}]


def test_charge_refunds_lookup_filters_by_charge(resolve: Any, stripe_api: Mock) -> None:
    match = [matchers.query_param_matcher({"limit": "100", "charge": "ch_1"})]
    stripe_api.get(f"{BASE}/v1/refunds", json=page({"id": "re_1"}), match=match)
    assert resolve(ChargeRefunds("ch_1")) == [{"id": "re_1"}]


def test_price_lookup_expands_the_product_and_is_cached(resolve: Any, stripe_api: Mock) -> None:
    match = [matchers.query_param_matcher({"expand[0]": "product"})]
    stripe_api.get(f"{BASE}/v1/prices/price_1", json=PRICE, match=match)
    assert [resolve(Price("price_1")) for _ in range(3)] == [PRICE] * 3
    assert len(stripe_api.calls) == 1


def test_related_object_lookup_requests_its_path(resolve: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/refunds/re_1", json={"id": "re_1"})
    assert resolve(RelatedObject("/v1/refunds/re_1")) == {"id": "re_1"}


def test_lookup_for_a_connected_account_sends_its_header(stripe_api: Mock) -> None:
    match = [matchers.header_matcher({"Stripe-Account": "acct_1"})]
    stripe_api.get(f"{BASE}/v1/refunds/re_1", json={"id": "re_1"}, match=match)
    StripeAPI(StripeSettings("rk_test_1")).resolver("acct_1")(RelatedObject("/v1/refunds/re_1"))


def test_lookup_uses_the_api_base_of_the_settings(stripe_api: Mock) -> None:
    stripe_api.get("http://127.0.0.1:9/v1/refunds/re_1", json={"id": "re_1"})
    settings = StripeSettings("rk_test_1", "http://127.0.0.1:9")
    assert StripeAPI(settings).resolver()(RelatedObject("/v1/refunds/re_1")) == {"id": "re_1"}


def test_lookup_escapes_a_slash_in_an_id(resolve: Any, stripe_api: Mock) -> None:
    stripe_api.get(f"{BASE}/v1/prices/..%2Fcharges", json=PRICE)
    assert resolve(Price("../charges")) == PRICE


@pytest.mark.parametrize("status", [429, 500, 503])
def test_lookup_after_one_error_is_retried(resolve: Any, stripe_api: Mock, status: int) -> None:
    stripe_api.get(LINES, status=status, json={"error": {"message": "later"}}, headers={"Stripe-Should-Retry": "true"})
    stripe_api.get(LINES, json=page(LINE))
    assert resolve(SessionLines(SESSION)) == [LINE]


@pytest.mark.parametrize(
    "failure",
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
def test_failed_lookup_raises_without_response_data(resolve: Any, stripe_api: Mock, failure: dict[str, Any]) -> None:
    stripe_api.assert_all_requests_are_fired = False
    stripe_api.get(LINES, **failure)
    with pytest.raises(StripeUnavailableError) as raised:
        resolve(SessionLines(SESSION))
    assert "secret" not in str(raised.value)
