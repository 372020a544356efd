"""Requests: signatures, bodies, methods and paths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import request, request_finished, request_started
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from support import delivery
from support.delivery import OLDER_SECRET, SECRET, Post
from support.recorded import session_event, sign
from support.stored_rows import Admin, stored
from webhook.app import Application, create_app
from webhook.events.event import EventScope
from webhook.settings import Settings

# Signatures


def invalid_signatures(body: bytes) -> dict[str, str]:
    good = sign(body, SECRET)
    timestamp, signature = good.split(",")
    now = int(time.time())
    return {
        "none": "",
        "malformed": "garbage",
        "no timestamp": signature,
        "no signature": timestamp,
        "timestamp not a number": f"t=now,{signature}",
        "non-ASCII": f"{timestamp},v1=\xe9",
        "non-ASCII timestamp": f"t=\xb2,{signature}",
        "of another secret": sign(body, "whsec_other"),
        "of another body": sign(body + b" ", SECRET),
        "of another scheme": good.replace("v1=", "v0="),
        "of another time": f"t={now + 1},{signature}",
        "stale": sign(body, SECRET, now - 301),
        "two headers": f"{good},{good}",
        "two headers, the second garbage": f"{good},garbage",
        "two headers, the first without a timestamp": f"garbage=1,{good},{timestamp}",
    }


@pytest.mark.parametrize("problem", invalid_signatures(b""))
def test_invalid_signature_is_rejected(post: Post, admin: Admin, problem: str) -> None:
    body = json.dumps(session_event()).encode()
    answer = post(body, invalid_signatures(body)[problem])
    assert (answer.status_code, stored(admin)) == (400, 0)
    assert answer.json is not None
    assert answer.json.keys() == {"error"}


def test_missing_signature_header_is_rejected(client: FlaskClient) -> None:
    assert client.post("/webhook", json=session_event()).status_code == 400


def test_two_signature_headers_are_rejected(client: FlaskClient) -> None:
    body = json.dumps(session_event()).encode()
    headers = [("Stripe-Signature", sign(body, SECRET)), ("Stripe-Signature", sign(body, OLDER_SECRET))]
    assert client.post("/webhook", data=body, headers=headers).status_code == 400


def test_signature_with_the_older_secret_is_accepted(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    assert post(body, sign(body, OLDER_SECRET)).json == {"outcome": "recorded"}


def test_signatures_with_both_secrets_are_accepted(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    timestamp = int(time.time())
    older, newer = (sign(body, secret, timestamp).partition(",")[2] for secret in (OLDER_SECRET, SECRET))
    assert post(body, f"t={timestamp},{older},{newer},v0=0000").json == {"outcome": "recorded"}


def test_signature_within_the_tolerance_is_accepted(post: Post) -> None:
    body = json.dumps(session_event()).encode()
    assert post(body, sign(body, SECRET, int(time.time()) - 290)).status_code == 200


# Bodies


def nested(depth: int) -> bytes:
    deep = b"[" * depth + b"]" * depth
    return json.dumps(session_event(credits=None)).encode()[:-1] + b', "deep": ' + deep + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"42",
        b'"evt_1"',
        b"{",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf{}",
        json.dumps(session_event()).encode("utf-16"),
        json.dumps(session_event() | {"id": 1}).encode(),
        json.dumps(session_event() | {"type": None}).encode(),
        json.dumps(session_event() | {"data": []}).encode(),
        json.dumps(session_event() | {"data": {"object": []}}).encode(),
        json.dumps(session_event() | {"data": {}}).encode(),
        json.dumps([session_event()]).encode(),
        json.dumps(session_event(amount_total=float("nan"))).encode(),
        json.dumps(session_event(amount_total=float("inf"))).encode(),
        json.dumps(session_event())[:-2].encode(),
        json.dumps(session_event()).encode() * 2,
        b'{"id": 1' + b"0" * 5000 + b"}",
        nested(200_000),
    ],
    ids=range(23),
)
def test_signed_body_that_is_not_one_event_is_rejected(post: Post, admin: Admin, body: bytes) -> None:
    assert (post(body).status_code, stored(admin)) == (400, 0)


@pytest.mark.parametrize("depth", [100, 400, 900, 5_000, 20_000, 50_000, 90_000])
def test_deeply_nested_body_is_rejected_or_parked(post: Post, depth: int) -> None:
    """The status is never 503."""
    assert post(nested(depth)).status_code in (200, 400)


def padded(size: int) -> bytes:
    body = json.dumps(session_event()).encode()
    return body + b" " * (size - len(body))


def test_body_of_one_mebibyte_is_recorded(post: Post) -> None:
    assert post(padded(1024 * 1024)).json == {"outcome": "recorded"}


def test_body_over_one_mebibyte_is_too_large(post: Post, admin: Admin) -> None:
    assert (post(padded(1024 * 1024 + 1)).status_code, stored(admin)) == (413, 0)


# Other requests


def deliver_to_path(client: FlaskClient, path: str, event: dict[str, Any]) -> TestResponse:
    """Deliver a signed event to a path, which Flask's client would otherwise read as a URL."""
    body = json.dumps(event).encode()
    headers = {"Stripe-Signature": sign(body, SECRET)}
    return client.post(data=body, headers=headers, environ_overrides={"PATH_INFO": path})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_method_is_not_allowed(client: FlaskClient, method: str) -> None:
    answer = client.open("/webhook", method=method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/webhook/", "//webhook"])
def test_webhook_with_another_slash_works_alike(client: FlaskClient, admin: Admin, buyer: str, path: str) -> None:
    """Stripe counts a redirect as a failure. The log line is the same."""
    with capture_logs() as lines:
        answer = deliver_to_path(client, path, session_event(user_id=buyer))
    assert (answer.status_code, answer.json, stored(admin)) == (200, {"outcome": "recorded"}, 2)
    assert [(line["event"], line["outcome"]) for line in lines] == [("delivery", "recorded")]
    assert client.get("/webhook/").status_code == 405
    assert 'endpoint="webhook",status="200"' in client.get("/metrics").text


def test_other_path_is_not_found(client: FlaskClient) -> None:
    assert client.get("/").status_code == 404


@pytest.mark.parametrize("path", ["/", "/stripe/webhook", "//webhooks", "/webhook//", "/healthz/"])
def test_delivery_to_another_path_is_logged(client: FlaskClient, path: str) -> None:
    """The endpoint has a wrong URL, and its deliveries fail. Stripe shows the answer."""
    with capture_logs() as lines:
        answer = deliver_to_path(client, path, session_event())
    assert (answer.status_code, answer.json) == (
        404,
        {"error": "deliveries go to /webhook: correct the URL of the endpoint"},
    )
    [line] = lines
    assert (line["log_level"], line["outcome"], line["reason"]) == ("warning", "rejected", "wrong_path")
    assert line["path"] == path


def test_path_of_a_delivery_is_logged_only_if_it_is_plain(client: FlaskClient) -> None:
    with capture_logs() as lines:
        deliver_to_path(client, "/a b\x1b[31m", session_event())
    assert lines[0]["path"] == "other"


@pytest.mark.parametrize(
    "signature", ["", "garbage", sign(b"{}", "whsec_another")], ids=["none", "garbage", "of another secret"]
)
def test_scan_of_another_path_is_not_logged(client: FlaskClient, signature: str) -> None:
    """Anybody can send these, and they tell an operator nothing."""
    with capture_logs() as lines:
        answer = client.post("/wp-login.php", data=b"{}", headers={"Stripe-Signature": signature})
    assert (answer.status_code, lines) == (404, [])


def test_large_body_at_another_path_is_not_found(client: FlaskClient) -> None:
    assert client.post("/elsewhere", data=b" " * (1024 * 1024 + 2)).status_code == 404


def test_healthz_without_a_database_is_ok() -> None:
    settings = Settings("postgresql://nobody@127.0.0.1:1/none", (SECRET,), EventScope(livemode=False))
    assert create_app(settings).test_client().get("/healthz").status_code == 200


def test_readyz_with_the_schema_is_ok(client: FlaskClient) -> None:
    assert client.get("/readyz").status_code == 200


def test_readyz_with_an_older_schema_is_unavailable(client: FlaskClient, admin: Admin) -> None:
    admin.execute(
        "create or replace function billing.schema_version() returns text"
        " language sql immutable set search_path = '' return '20261122000001'"
    )
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_bug_is_answered_503_and_logged_without_its_message(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("buyer@example.com")

    monkeypatch.setattr("webhook.app.settle", fail)
    with capture_logs() as lines:
        answer = post(session_event())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert [(line["log_level"], line["reason"], line["cause"]) for line in lines] == [("error", "bug", "RuntimeError")]
    assert "buyer@example.com" not in str(lines)


# Flask


def test_hooks_and_signals_of_flask_run_for_a_delivery(app: Application) -> None:
    ran: list[str] = []

    def run(name: str) -> Callable[..., Any]:
        def hook(*arguments: Any, **_: Any) -> Any:
            ran.append(f"{name} {request.endpoint}")
            return arguments[0] if name == "after" else None

        return hook

    app.before_request(run("before"))
    app.after_request(run("after"))
    app.teardown_request(run("teardown"))
    started, finished = run("started"), run("finished")
    with request_started.connected_to(started, app), request_finished.connected_to(finished, app):
        assert delivery.post(app.test_client(), session_event()).status_code == 200
    assert ran == [f"{name} webhook" for name in ("started", "before", "after", "finished", "teardown")]


def test_answer_has_the_headers_that_a_hook_adds(app: Application) -> None:
    app.after_request(lambda response: response.headers.add("X-Seen", "yes") or response)
    for event_id in ("evt_1", "evt_2"):
        answer = delivery.post(app.test_client(), session_event(event_id=event_id))
        assert answer.headers.getlist("X-Seen") == ["yes"]


@pytest.mark.parametrize("host", ["", "two words", "example.com:port"])
def test_delivery_to_any_host_is_recorded(client: FlaskClient, buyer: str, host: str) -> None:
    """The signature shows that Stripe sent it. A proxy may have changed the host."""
    assert buyer
    body = json.dumps(session_event()).encode()
    answer = client.post("/webhook", data=body, headers={"Stripe-Signature": sign(body, SECRET), "Host": host})
    assert answer.json == {"outcome": "recorded"}
