"""`webhook endpoint create`, `check` and `roll`, as an operator types them."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
import responses

from support.databases import Database
from support.endpoints import ENDPOINTS, URL, Command, Stripe, endpoint, page
from support.worker import SECRET, working
from webhook.commands import rotation
from webhook.commands.endpoint import EndpointError
from webhook.commands.rotation import NotProvedError
from webhook.events.interpret import HANDLED_EVENTS
from webhook.settings import StripeSettings
from webhook.stripe_api.endpoints import StripeOperator

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


def test_create_again_with_an_endpoint_there_makes_another(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_old"] = endpoint("we_old")
    assert webhook("endpoint", "create", "--url", URL, "--again").code == 0
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
    assert (done.code, done.err) == (1, "webhook: Stripe's answer is no new endpoint\n")


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
        ({"enabled_events": [*HANDLED_EVENTS, "plan.created"]}, ["superfluous event: plan.created"]),
        ({"enabled_events": ["*"]}, ["superfluous events: * is complete, and far more than the worker reads"]),
        (
            {"api_version": "2022-08-01"},
            ["API version 2022-08-01 is older than 2022-11-15: create --again, then delete this one"],
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


# roll: the first step


def test_roll_begin_makes_a_disabled_copy_that_knows_whom_it_replaces(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(enabled_events=["*"], api_version="2024-06-20")
    done = webhook("endpoint", "roll", "--begin")
    new = stripe.endpoints["we_2"]
    assert done.out == "endpoint  we_2\nsecret    whsec_we_2\n"
    assert (new["url"], new["enabled_events"], new["api_version"]) == (URL, ["*"], "2024-06-20")
    assert (new["status"], new["metadata"]["replaces"]) == ("disabled", "we_1")


def test_roll_begin_tells_stripe_no_secret(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    webhook("endpoint", "roll", "--begin")
    assert "whsec_" not in str(stripe.writes)


def test_roll_of_an_endpoint_that_was_rolled_before_takes_no_old_hash_along(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(metadata={"replaces": "we_0", "secret_sha256": "of the old secret"})
    assert webhook("endpoint", "roll", "--begin").code == 0
    assert "of the old secret" not in str(stripe.writes)


def test_roll_begin_twice_makes_no_third_endpoint(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    webhook("endpoint", "roll", "--begin")
    done = webhook("endpoint", "roll", "--begin", "--url", URL)
    assert (done.code, done.err[:38], len(stripe.endpoints)) == (1, "webhook: we_2 is there to replace we_1", 2)


def test_roll_with_connected_accounts_asks_whether_it_is_for_them(
    webhook: Command, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe.endpoints["we_1"] = endpoint()
    monkeypatch.setenv("STRIPE_ACCOUNT", "acct_1")
    assert webhook("endpoint", "roll", "--begin").code == 1
    assert webhook("endpoint", "roll", "--begin", "--connect").code == 0
    assert stripe.writes[0][1]["connect"] == "true"


def test_roll_of_an_endpoint_on_this_machine_is_refused(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint(url="http://127.0.0.1:4242/webhook")
    assert (webhook("endpoint", "roll", "--begin").code, stripe.writes) == (1, [])


@pytest.mark.parametrize(("trouble", "told"), TROUBLE)
def test_roll_that_stripe_does_not_answer_ends_with_one_line(
    webhook: Command, stripe_api: Mock, trouble: dict[str, Any], told: str
) -> None:
    stripe_api.get(ENDPOINTS, **trouble)
    done = webhook("endpoint", "roll", "--begin")
    assert (done.code, done.err.count("\n"), told in done.err, KEY in done.err) == (1, 1, True, False)


# roll: the second step


@pytest.fixture(scope="module")
def operator() -> StripeOperator:
    return StripeOperator(StripeSettings(KEY))


@pytest.fixture
def worker_url(database: Database, tmp_path: Path) -> Iterator[str]:
    """A running worker that knows the old endpoint's secret, SECRET, and the new one's."""
    with working(database.url, tmp_path, processes=1, secrets=f"{SECRET},whsec_we_2") as worker:
        yield f"{worker.url}/webhook"


def begun(stripe: Stripe, operator: StripeOperator, url: str) -> None:
    stripe.endpoints["we_1"] = endpoint(url=url)
    rotation.begin(operator, None, any_url=True)


@pytest.fixture
def both_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", f"{SECRET},whsec_we_2")


@pytest.mark.usefixtures("webhook", "both_secrets")
def test_roll_finish_with_both_proved_leaves_the_new_endpoint_alone(
    stripe: Stripe, operator: StripeOperator, worker_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(stripe, operator, worker_url)
    rotation.finish(operator, "we_1", yes=True, any_url=True)
    assert [(name, each["status"]) for name, each in stripe.endpoints.items()] == [("we_2", "enabled")]
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()[2:]] == ["proved", "enabled", "deleted"]


@pytest.mark.usefixtures("webhook", "both_secrets")
def test_roll_finish_with_events_undelivered_keeps_both_until_told(
    stripe: Stripe, operator: StripeOperator, worker_url: str
) -> None:
    begun(stripe, operator, worker_url)
    stripe.undelivered = [{"id": "evt_waits"}]
    with pytest.raises(EndpointError, match="evt_waits"):
        rotation.finish(operator, None, yes=True, any_url=True)
    assert [each["status"] for each in stripe.endpoints.values()] == ["enabled", "enabled"]
    rotation.finish(operator, None, yes=True, undelivered=True, any_url=True)
    assert list(stripe.endpoints) == ["we_2"]


@pytest.mark.usefixtures("webhook", "both_secrets")
def test_roll_finish_before_the_deployment_deletes_nothing(
    stripe: Stripe, operator: StripeOperator, database: Database, tmp_path: Path
) -> None:
    with working(database.url, tmp_path, processes=1) as worker:
        begun(stripe, operator, f"{worker.url}/webhook")
        with pytest.raises(NotProvedError, match="new secret is answered 400"):
            rotation.finish(operator, None, yes=True, any_url=True)
    assert [each["status"] for each in stripe.endpoints.values()] == ["enabled", "disabled"]


@pytest.mark.usefixtures("webhook")
def test_roll_finish_with_an_old_secret_that_is_none_deletes_nothing(
    stripe: Stripe, operator: StripeOperator, worker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_we_2,whsec_unknown")
    begun(stripe, operator, worker_url)
    with pytest.raises(NotProvedError, match="old secret is answered 400"):
        rotation.finish(operator, None, yes=True, any_url=True)
    assert len(stripe.endpoints) == 2


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that gives the same answer to everything."""
    status, body = request.param

    class Same(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/webhook"
        server.shutdown()


@pytest.mark.parametrize(
    ("answering", "told"),
    [
        ((200, b"<html>"), "answered 200"),
        ((200, b"[]"), "answered 200"),
        ((302, b""), "answered 302"),
        ((200, b'{"outcome": "ignored"}'), "made-up secret is answered 200"),
    ],
    indirect=["answering"],
)
def test_proof_by_what_is_no_worker_fails(answering: str, told: str) -> None:
    with pytest.raises(NotProvedError, match=told):
        rotation.prove(answering, "whsec_old", "whsec_new")


def test_proof_by_nobody_fails() -> None:
    with pytest.raises(NotProvedError, match="not at all"):
        rotation.prove("http://127.0.0.1:1/webhook", "whsec_old", "whsec_new")


def test_roll_finish_with_none_begun_says_so(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    assert webhook("endpoint", "roll", "--finish") == (1, "", "webhook: no rotation has begun: roll --begin\n")


def test_roll_finish_with_two_begun_asks_which(webhook: Command, stripe: Stripe) -> None:
    for number in (1, 3):
        stripe.endpoints[f"we_{number}"] = endpoint(f"we_{number}", url=f"{URL}{number}")
        webhook("endpoint", "roll", f"we_{number}", "--begin")
    assert "which rotation?" in webhook("endpoint", "roll", "--finish").err


def test_roll_finish_of_an_endpoint_half_made_deletes_nothing(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints = {"we_1": endpoint(), "we_2": endpoint("we_2", metadata={"replaces": "we_1"})}
    done = webhook("endpoint", "roll", "--finish")
    assert (done.code, "not made to the end" in done.err, len(stripe.endpoints)) == (1, True, 2)


def test_roll_finish_with_another_secret_typed_deletes_nothing(webhook: Command, stripe: Stripe) -> None:
    stripe.endpoints["we_1"] = endpoint()
    webhook("endpoint", "roll", "--begin")
    done = webhook("endpoint", "roll", "--finish", "--yes", typed="whsec_typed\n")
    assert (done.code, len(stripe.endpoints)) == (1, 2)
    assert "webhook: this is not the secret of we_2\n" in done.err
    assert "whsec_typed" not in done.out + done.err


# roll: both steps


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The proofs that were asked for; the first one fails."""
    asked: list[tuple[str, ...]] = []

    def prove(*arguments: str) -> None:
        asked.append(arguments)
        if len(asked) == 1:
            raise NotProvedError("not yet")

    monkeypatch.setattr(rotation, "prove", prove)
    return asked


def test_roll_asks_again_until_both_are_proved(webhook: Command, stripe: Stripe, proofs: list[tuple[str, ...]]) -> None:
    stripe.endpoints["we_1"] = endpoint()
    done = webhook("endpoint", "roll", typed="whsec_old\ny\ny\ny\n")
    assert (done.code, list(stripe.endpoints)) == (0, ["we_2"])
    assert proofs == [(URL, "whsec_old", "whsec_we_2")] * 2
    assert "not yet" in done.err
    assert "whsec_old" not in done.out + done.err


def test_roll_declined_deletes_nothing(webhook: Command, stripe: Stripe, proofs: list[tuple[str, ...]]) -> None:
    stripe.endpoints["we_1"] = endpoint()
    done = webhook("endpoint", "roll", typed="whsec_old\ny\ny\nn\n")
    assert (done.code, len(proofs), len(stripe.endpoints)) == (1, 2, 2)


def test_roll_without_the_right_to_see_events_deletes_nothing(
    webhook: Command, stripe: Stripe, stripe_api: Mock, proofs: list[tuple[str, ...]]
) -> None:
    proofs.append(())
    stripe.endpoints["we_1"] = endpoint()
    stripe_api.replace("GET", "https://api.stripe.com/v1/events", status=403, json={"error": {"message": "no"}})
    done = webhook("endpoint", "roll", "--yes", typed="whsec_old\ny\n")
    assert (done.code, "add Events: Read" in done.err, len(stripe.endpoints)) == (1, True, 2)


def test_roll_looks_for_undelivered_events_of_the_handled_types(
    webhook: Command, stripe: Stripe, stripe_api: Mock, proofs: list[tuple[str, ...]]
) -> None:
    proofs.append(())
    stripe.endpoints["we_1"] = endpoint()
    webhook("endpoint", "roll", "--yes", typed="whsec_old\ny\n")
    [asked] = [call.request.url for call in stripe_api.calls if "/v1/events" in str(call.request.url)]
    parameters = parse_qs(str(asked).partition("?")[2])
    assert parameters["delivery_success"] == ["false"]
    assert [parameters[f"types[{index}]"][0] for index in range(len(HANDLED_EVENTS))] == list(HANDLED_EVENTS)
