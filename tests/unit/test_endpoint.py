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

FAILURES: list[tuple[dict[str, Any], str]] = [
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


def test_create_enables_exactly_the_handled_events(webhook: Command, stripe: Stripe) -> None:
    assert webhook("endpoint", "create", "--url", URL).code == 0
    created = stripe.endpoints["we_1"]
    assert (created["url"], created["enabled_events"]) == (URL, list(HANDLED_EVENTS))
    assert created["api_version"] == "2026-10-28.endive"


def test_create_prints_the_id_and_the_secret_once(webhook: Command, stripe: Stripe) -> None:
    """Standard error names the setting for the secret, not the secret itself."""
    del stripe
    done = webhook("endpoint", "create", "--url", URL)
    assert done.out == "endpoint  we_1\nsecret    whsec_we_1\n"
    assert "STRIPE_WEBHOOK_SECRET" in done.err
    assert "whsec_" not in done.err


def test_create_with_an_api_key_option_uses_that_key(webhook: Command, stripe: Stripe, stripe_api: Mock) -> None:
    del stripe
    done = webhook("endpoint", "create", "--url", URL, "--api-key", "sk_test_given")
    assert stripe_api.calls[0].request.headers["Authorization"] == "Bearer sk_test_given"
    assert "sk_test_given" not in done.out + done.err


def test_create_with_an_existing_endpoint_names_it_and_fails(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_old"] = endpoint("we_old")
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err[:15], stripe.writes) == (1, "webhook: we_old", [])


def test_create_force_with_an_existing_endpoint_adds_one(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_old"] = endpoint("we_old")
    done = webhook("endpoint", "create", "--url", URL, "--force")
    assert done.code == 0
    assert len(stripe.endpoints) == 2
    assert "Add it to STRIPE_WEBHOOK_SECRET, after a comma" in done.err


def test_create_connect_requests_events_of_connected_accounts(webhook: Command, stripe: Stripe) -> None:
    done = webhook("endpoint", "create", "--url", URL, "--connect")
    assert stripe.writes[0][1]["connect"] == "true"
    assert "Add it to STRIPE_WEBHOOK_SECRET, after a comma" in done.err


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
def test_create_with_an_unusable_url_fails_without_a_request(webhook: Command, url: str) -> None:
    done = webhook("endpoint", "create", "--url", url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "hunter2" not in done.err


@pytest.mark.parametrize("path", ["", "/", "/webhooks", "/stripe"])
def test_create_with_another_path_requires_force(webhook: Command, stripe: Stripe, path: str) -> None:
    """The worker answers 404 there."""
    url = f"https://credits.example.com{path}"
    done = webhook("endpoint", "create", "--url", url)
    assert (done.code, stripe.writes) == (2, [])
    assert "does not end with /webhook" in done.err
    assert webhook("endpoint", "create", "--url", url, "--force").code == 0


def test_create_with_an_endpoint_at_the_other_slash_fails(webhook: Command, stripe: Stripe) -> None:
    """Both would deliver every event."""
    stripe.endpoints["we_old"] = endpoint("we_old", url=f"{URL}/")
    assert webhook("endpoint", "create", "--url", URL).code == 1


def test_create_without_a_key_names_the_variable(webhook: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_API_KEY")
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err) == (2, "webhook: STRIPE_API_KEY is not set: set it, or give --api-key\n")


@pytest.mark.parametrize(("failure", "message"), FAILURES)
def test_create_with_a_failed_request_prints_one_line(
    webhook: Command, stripe_api: Mock, failure: dict[str, Any], message: str
) -> None:
    """The line never contains the API key."""
    stripe_api.get(ENDPOINTS, json=page())
    stripe_api.post(ENDPOINTS, **failure)
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert KEY not in done.err


def test_create_without_a_secret_in_the_response_fails(webhook: Command, stripe_api: Mock) -> None:
    stripe_api.get(ENDPOINTS, json=page())
    stripe_api.post(ENDPOINTS, json=endpoint())
    done = webhook("endpoint", "create", "--url", URL)
    assert (done.code, done.err) == (2, "webhook: Stripe's answer does not contain a new endpoint\n")


# check


def test_check_of_a_correct_endpoint_is_ok(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    assert webhook("endpoint", "check") == (0, "we_1: ok\n", "")


@pytest.mark.parametrize("selector", [["we_2"], ["--url", "https://example.com/stripe"]])
def test_check_finds_the_endpoint_by_id_or_url(webhook: Command, stripe: Stripe, selector: list[str]) -> None:
    stripe.endpoints["we_1"] = endpoint()
    stripe.endpoints["we_2"] = endpoint("we_2", url="https://example.com/stripe")
    done = webhook("endpoint", "check", *selector)
    assert (done.code, done.out.splitlines()[0]) == (0, "we_2: ok")


def _with(event: str, other: str) -> list[str]:
    """Return the events that the worker reads, with another one in place of ``event``."""
    return [other if each == event else each for each in HANDLED_EVENTS]


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({"status": "disabled"}, ["disabled: enable it in the Dashboard"]),
        ({"enabled_events": list(HANDLED_EVENTS[2:])}, [f"missing event: {each}" for each in HANDLED_EVENTS[:2]]),
        (
            {"enabled_events": _with("invoice.paid", "invoice.payment_succeeded")},
            [
                "missing event: invoice.paid (invoice.payment_succeeded does not replace it)",
                "unneeded event: invoice.payment_succeeded",
            ],
        ),
        (
            {"enabled_events": _with("payment_intent.succeeded", "charge.succeeded")},
            [
                "missing event: payment_intent.succeeded (charge.succeeded does not replace it)",
                "unneeded event: charge.succeeded",
            ],
        ),
        (
            {"url": "http://credits.example.com/webhook"},
            ["its URL begins with http://, which Stripe refuses in live mode: change it to https://"],
        ),
        ({"enabled_events": [*HANDLED_EVENTS, "plan.created"]}, ["unneeded event: plan.created"]),
        ({"enabled_events": ["*"]}, ["unneeded events: * includes far more than the worker reads"]),
        (
            {"api_version": "2022-08-01"},
            [
                (
                    "API version 2022-08-01 is older than 2022-11-15: create another with --force, use both secrets, "
                    "and delete this one after its retries (3 days)"
                )
            ],
        ),
    ],
)
def test_check_of_a_misconfigured_endpoint_lists_each_problem(
    webhook: Command, stripe: Stripe, fields: dict[str, Any], problems: list[str]
) -> None:
    stripe.endpoints["we_1"] = endpoint(**fields)
    done = webhook("endpoint", "check")
    assert (done.code, done.out.splitlines()) == (1, [f"we_1: {each}" for each in problems])


def test_check_of_the_oldest_supported_api_version_is_ok(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(api_version="2022-11-15")
    assert webhook("endpoint", "check").code == 0


def test_check_of_the_accounts_default_api_version_is_ok(webhook: Command, stripe: Stripe) -> None:
    """The output mentions the default API version."""
    stripe.endpoints["we_1"] = endpoint(api_version=None)
    done = webhook("endpoint", "check")
    assert (done.code, "default API version" in done.out) == (0, True)


@pytest.mark.parametrize("selector", [[], ["--url", URL], ["--url", f"{URL}/"], ["we_1"]])
def test_check_of_a_url_with_a_trailing_slash_is_ok(webhook: Command, stripe: Stripe, selector: list[str]) -> None:
    """It works; the output mentions what is configured."""
    stripe.endpoints["we_1"] = endpoint(url=f"{URL}/")
    done = webhook("endpoint", "check", *selector)
    note = "we_1: its URL ends with /webhook/, which works like /webhook\n"
    assert (done.code, done.out) == (0, "we_1: ok\n" + note)


def test_check_of_another_path_mentions_it(webhook: Command, stripe: Stripe) -> None:
    """A proxy may change the path."""
    stripe.endpoints["we_1"] = endpoint(url="https://credits.example.com/stripe")
    done = webhook("endpoint", "check", "we_1")
    assert (done.code, "its URL does not end with /webhook" in done.out) == (0, True)


def test_check_without_a_matching_path_lists_the_endpoints(webhook: Command, stripe: Stripe) -> None:
    """The list has no query, which may hold a token."""
    stripe.endpoints["we_1"] = endpoint(url="https://credits.example.com/webhooks?token=hidden")
    done = webhook("endpoint", "check")
    assert (done.code, "only we_1 (credits.example.com/webhooks): run" in done.err) == (1, True)


@pytest.mark.parametrize("url", [URL, f"{URL}/"])
def test_check_mentions_another_endpoint_with_the_same_url(webhook: Command, stripe: Stripe, url: str) -> None:
    """It is right during a change of the API version."""
    stripe.endpoints = {"we_1": endpoint("we_1"), "we_2": endpoint("we_2", url=url)}
    done = webhook("endpoint", "check", "we_1")
    assert (done.code, "we_1: we_2 has the same URL" in done.out) == (0, True)


def test_check_of_a_missing_endpoint_fails(webhook: Command, stripe: Stripe) -> None:
    del stripe
    assert webhook("endpoint", "check", "we_9").code == 1


def test_check_with_several_endpoints_lists_them(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints = {name: endpoint(name) for name in ("we_1", "we_2")}
    assert webhook("endpoint", "check") == (
        2,
        "",
        "webhook: which of these? we_1 (credits.example.com/webhook), we_2 (credits.example.com/webhook)\n",
    )


@pytest.mark.parametrize(("failure", "message"), FAILURES)
def test_check_with_a_failed_request_exits_with_2(
    webhook: Command, stripe_api: Mock, failure: dict[str, Any], message: str
) -> None:
    """The one line on standard error never contains the API key."""
    stripe_api.get(ENDPOINTS, **failure)
    done = webhook("endpoint", "check")
    assert (done.code, done.err.count("\n"), message in done.err, KEY in done.err) == (2, 1, True, False)


def test_check_with_a_malformed_key_exits_with_2(webhook: Command) -> None:
    """The message never contains the key."""
    done = webhook("endpoint", "check", "--api-key", "pk_test_1")
    assert (done.code, "pk_test_1" in done.err) == (2, False)
