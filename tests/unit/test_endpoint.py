"""`webhook endpoint create` and `check`, as an operator types them."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import responses

from support.commands import Command
from support.endpoints import ENDPOINTS, URL, Stripe, endpoint
from support.stripe_api import page
from webhook.events.interpret import HANDLED_EVENTS

KEY = "rk_test_operators_key"
Mock = responses.RequestsMock

TROUBLE: list[tuple[dict[str, Any], str]] = [
    ({"status": 401, "json": {"error": {"message": f"Invalid key {KEY}"}}}, "does not accept this key"),
    ({"status": 403, "json": {"error": {"message": f"{KEY} may not"}}}, "add Webhook Endpoints: "),
    ({"status": 429, "json": {"error": {"message": "later"}}}, "try again"),
    ({"status": 500, "json": {"error": {"message": "oh"}}}, "status 500"),
    ({"body": requests.ReadTimeout(KEY)}, "no answer"),
    ({"json": []}, "not an object"),
]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("STRIPE_WEBHOOK_SECRET", "STRIPE_ACCOUNT", "STRIPE_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    return Command(monkeypatch)


@pytest.fixture
def stripe(stripe_api: Mock) -> Stripe:
    stripe = Stripe()
    stripe.answer(stripe_api)
    return stripe


# create


def test_create_makes_an_endpoint_with_exactly_the_handled_events(webhook: Command, stripe: Stripe) -> None:
    assert webhook("endpoint", "create", "--url", URL).code == 0
    made = stripe.endpoints["we_1"]
    assert (made["url"], made["enabled_events"]) == (URL, list(HANDLED_EVENTS))
    assert made["api_version"] == "2026-10-28.endive"


def test_create_prints_the_id_and_the_secret_once_and_what_to_do(webhook: Command, stripe: Stripe) -> None:
    del stripe
    done = webhook("endpoint", "create", "--url", URL)
    assert done.out == "endpoint  we_1\nsecret    whsec_we_1\n"
    assert "STRIPE_WEBHOOK_SECRET" in done.err
    assert "whsec_" not in done.err


def test_create_uses_the_key_that_is_given(webhook: Command, stripe: Stripe, stripe_api: Mock) -> None:
    del stripe
    done = webhook("endpoint", "create", "--url", URL, "--api-key", "sk_test_given")
    assert stripe_api.calls[0].request.headers["Authorization"] == "Bearer sk_test_given"
    assert "sk_test_given" not in done.out + done.err


def test_create_with_an_endpoint_there_names_it_and_makes_none(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_old"] = endpoint("we_old")
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err[:15], stripe.writes) == (1, "webhook: we_old", [])


def test_create_force_with_an_endpoint_there_makes_another(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_old"] = endpoint("we_old")
    assert webhook("endpoint", "create", "--url", URL, "--force").code == 0
    assert len(stripe.endpoints) == 2


def test_create_for_connected_accounts_says_so_to_stripe(webhook: Command, stripe: Stripe) -> None:
    webhook("endpoint", "create", "--url", URL, "--connect")
    assert stripe.writes[0][1]["connect"] == "true"


@pytest.mark.parametrize(
    "url",
    [
        "http://credits.example.com/webhook",
        "https://localhost/webhook",
        "https://127.0.0.1/webhook",
        "https://10.0.0.8/webhook",
        "https://[::1]/webhook",
        "https://worker.internal/webhook",
        "https://credits/webhook",
        "https://user:hunter2@example.com/webhook",
        "https://[/webhook",
        "https:///webhook",
        "credits.example.com/webhook",
        "",
    ],
)
def test_create_for_a_url_that_stripe_cannot_use_is_refused_unasked(webhook: Command, url: str) -> None:
    done = webhook("endpoint", "create", "--url", url)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "hunter2" not in done.err


def test_create_without_a_key_names_the_variable(webhook: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_API_KEY")
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err) == (2, "webhook: STRIPE_API_KEY is not set: set it, or give --api-key\n")


@pytest.mark.parametrize(("trouble", "told"), TROUBLE)
def test_create_that_stripe_refuses_ends_with_one_line_without_the_key(
    webhook: Command, stripe_api: Mock, trouble: dict[str, Any], told: str
) -> None:
    stripe_api.get(ENDPOINTS, json=page())
    stripe_api.post(ENDPOINTS, **trouble)
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert told in done.err
    assert KEY not in done.err


def test_create_answered_without_a_secret_ends_with_one_line(webhook: Command, stripe_api: Mock) -> None:
    stripe_api.get(ENDPOINTS, json=page())
    stripe_api.post(ENDPOINTS, json=endpoint())
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err) == (1, "webhook: Stripe's answer does not contain a new endpoint\n")


# check


def test_check_of_an_endpoint_as_wanted_is_ok(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    assert webhook("endpoint", "check") == (0, "we_1: ok\n", "")


@pytest.mark.parametrize("place", [["we_2"], ["--url", "https://example.com/stripe"]])
def test_check_finds_the_endpoint_by_id_or_url(webhook: Command, stripe: Stripe, place: list[str]) -> None:
    stripe.endpoints["we_1"] = endpoint()
    stripe.endpoints["we_2"] = endpoint("we_2", url="https://example.com/stripe")
    assert webhook("endpoint", "check", *place).out == "we_2: ok\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "disabled"}, ["disabled: enable it in the Dashboard"]),
        ({"enabled_events": list(HANDLED_EVENTS[2:])}, [f"missing event: {each}" for each in HANDLED_EVENTS[:2]]),
        ({"enabled_events": [*HANDLED_EVENTS, "plan.created"]}, ["unneeded event: plan.created"]),
        ({"enabled_events": ["*"]}, ["unneeded events: * includes far more than the worker reads"]),
        (
            {"api_version": "2022-08-01"},
            ["API version 2022-08-01 is older than 2022-11-15: create --force, then delete this one"],
        ),
    ],
)
def test_check_of_an_endpoint_that_differs_tells_each_difference(
    webhook: Command, stripe: Stripe, fields: dict[str, Any], told: list[str]
) -> None:
    stripe.endpoints["we_1"] = endpoint(**fields)
    done = webhook("endpoint", "check")
    assert (done.code, done.out.splitlines()) == (1, [f"we_1: {each}" for each in told])


def test_check_of_an_endpoint_of_the_oldest_version_is_ok(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(api_version="2022-11-15")
    assert webhook("endpoint", "check").code == 0


def test_check_of_an_endpoint_of_the_accounts_version_is_ok_and_says_so(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(api_version=None)
    done = webhook("endpoint", "check")
    assert (done.code, "default API version" in done.out) == (0, True)


def test_check_of_an_endpoint_that_is_not_there_says_so(webhook: Command, stripe: Stripe) -> None:
    del stripe
    assert webhook("endpoint", "check", "we_9").code == 1


def test_check_with_several_to_choose_from_names_them(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints = {name: endpoint(name) for name in ("we_1", "we_2")}
    assert webhook("endpoint", "check") == (2, "", "webhook: which of these? we_1, we_2\n")


@pytest.mark.parametrize(("trouble", "told"), TROUBLE)
def test_check_that_stripe_does_not_answer_cannot_be_done(
    webhook: Command, stripe_api: Mock, trouble: dict[str, Any], told: str
) -> None:
    stripe_api.get(ENDPOINTS, **trouble)
    done = webhook("endpoint", "check")
    assert (done.code, done.err.count("\n"), told in done.err, KEY in done.err) == (2, 1, True, False)


def test_check_with_a_bad_key_cannot_be_done(webhook: Command) -> None:
    done = webhook("endpoint", "check", "--api-key", "pk_test_1")
    assert (done.code, "pk_test_1" in done.err) == (2, False)
