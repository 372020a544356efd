"""The headers, texts and notices of the console's pages, and what it reports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO

import pytest
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.console import SAME_ORIGIN, SECRET_TEXT, bearer, change, log_in
from webhook.console.login import Login
from webhook.console.rendering import Templates, credits_, money, outside, outside_lines, style_sheet, when
from webhook.observability import logs
from webhook.settings import SettingsError
from worker.conftest import MakeApp

VIEW = "/console/test/view"


@pytest.mark.parametrize(
    "path", [VIEW, "/console/login", "/console/nothing", "/console/test/raises", "/console/", "/console/style.css"]
)
def test_every_answer_has_the_headers(ann: FlaskClient, path: str) -> None:
    headers = ann.get(path).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    forbidden = ("default-src", "script-src", "frame-ancestors", "base-uri")
    assert {policy[name] for name in forbidden} == {"'none'"}
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    if path != "/console/style.css":
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Host": "console.example"}], ids=str)
def test_refusal_has_the_headers(console: FlaskClient, headers: dict[str, str]) -> None:
    response = console.post("/console/login", headers=headers)
    assert response.status_code == 403
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


def test_pages_ask_for_nothing_from_elsewhere(ann: FlaskClient) -> None:
    html = ann.get(VIEW).text + ann.get("/console/nothing").text + style_sheet()[0]
    assert not re.search(r"https?://|<script|@import|javascript:|\son\w+=|style=", html)


def test_style_sheet_is_cached_under_its_version(console: FlaskClient) -> None:
    [address] = re.findall(r'href="(/console/style.css\?v=\w+)"', console.get("/console/login").text)
    assert "immutable" in console.get(address).headers["Cache-Control"]


MARKUP = "<script>alert(1)</script>"


@pytest.mark.parametrize("text", [MARKUP, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "&lt;", "'"])
def test_text_from_outside_is_escaped(ann: FlaskClient, text: str) -> None:
    """The title of the page has it without a filter."""
    page = ann.get(VIEW, query_string={"text": text}).text
    assert f"<bdi>{outside(text)[5:-6]}</bdi>" in page
    assert not re.search(r"<script|<img|49", page)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "\\x00"),
        ("a\x1b[31mb", "\\x1b"),
        ("a\x7fb", "\\x7f"),
        ("a\x85b", "\\x85"),
        ("a\u202eb", "\\u202e"),
        ("a\u2066b", "\\u2066"),
        ("a\u2028b", "\\u2028"),
        ("a\nb", "\\x0a"),
        ("a\ud800b", "\\ud800"),
    ],
    ids=ascii,
)
def test_marks_from_outside_are_visible(text: str, shown: str) -> None:
    assert outside(text) == f'<bdi>a<span class="mark">{shown}</span>{"[31m" if "[" in text else ""}b</bdi>'


def test_marks_in_a_row_are_marked_together() -> None:
    """A list of texts full of marks must not take seconds."""
    assert outside("a\u202e\u2066\x00b") == '<bdi>a<span class="mark">\\u202e\\u2066\\x00</span>b</bdi>'


def test_lines_of_a_payload_stay_lines() -> None:
    assert outside_lines("a\n\u202e<b>") == ('<bdi>a</bdi>\n<bdi><span class="mark">\\u202e</span>&lt;b&gt;</bdi>')


@pytest.mark.parametrize(
    ("object_id", "address"),
    [
        ("pi_3Qz", "https://dashboard.stripe.com/test/payments/pi_3Qz"),
        ("cs_test_a1", "https://dashboard.stripe.com/test/search?query=cs_test_a1"),
        ("pi_", None),
        ("PI_1", None),
        ("pi_1\n", None),
        ("pi_1/../../x", None),
        ("pi_ä", None),
        ('pi_1"onclick=', None),
        ("11111111-0000-4000-8000-000000000001", None),
        (None, None),
    ],
)
def test_dashboard_is_linked_for_ids_only(object_id: str | None, address: str | None) -> None:
    filters = Templates(livemode=False)._environment.filters  # noqa: SLF001
    found = re.findall('href="([^"]*)"', filters["object_id"](object_id))
    assert found == ([address] if address else [])


def test_amounts_and_times_are_readable() -> None:
    assert (money(1000, "usd"), money(1000, "jpy"), money(None, "usd")) == ("10.00 USD", "1,000 JPY", "-")
    assert (credits_(1234567), credits_(5, signed=True), credits_(None)) == ("1,234,567", "+5", "-")
    assert when(None) == "-"


def test_notice_is_shown_once(ann: FlaskClient) -> None:
    assert change(ann, "five <credits>").status_code == 303
    assert "five &lt;credits&gt;" in ann.get(VIEW).text
    assert "five" not in ann.get(VIEW).text


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_long_notice_fits_into_a_cookie(ann: FlaskClient, letter: str) -> None:
    [header] = change(ann, "".join(f"{number}{letter}" for number in range(2000))).headers.getlist("Set-Cookie")
    assert len(header) < 4096
    assert f"0{letter}1{letter}" in ann.get(VIEW).text


@pytest.mark.parametrize("key", ["another key", ""])
def test_forged_notice_is_not_shown(ann: FlaskClient, key: str) -> None:
    signed = Login("eve", "operator", key).sign("console-notice", "call this number") if key else "call this number"
    ann.set_cookie("console-notice-80", signed, path="/console")
    page = ann.get(VIEW, query_string={"notice": "call this number"})
    assert (page.status_code, "call this number" in page.text) == (200, False)


@pytest.fixture
def log_lines() -> Callable[[], list[dict[str, object]]]:
    """Return the log lines so far, as JSON."""
    stream = StringIO()
    logs.set_up(as_json=True, stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_failed_logins_are_counted_and_logged_once_a_minute(
    make_console: Callable[..., FlaskClient],
    log_lines: Callable[[], list[dict[str, object]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console, now = make_console(), 1000.0
    monkeypatch.setattr("webhook.observability.instrumentation.time.monotonic", lambda: now)
    for _ in range(3):
        log_in(console, "a-password", "a-token")
    now += 61
    log_in(console, "a-password", "a-token")
    lines = [line for line in log_lines() if line["message"] == "failed login"]
    assert [line["count"] for line in lines] == [1, 3]
    assert not [each for each in ("a-password", "a-token") if each in json.dumps(lines)]
    assert "webhook_console_failed_logins_total 4.0" in console.get("/metrics").text


def test_bug_shows_and_logs_no_message(
    make_console: Callable[..., FlaskClient], log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    page = make_console().get("/console/test/raises?q=a-secret-query", headers=bearer())
    assert page.status_code == 500
    [line] = [line for line in log_lines() if line["level"] == "error"]
    assert line["reason"] == "bug"
    assert str(line["location"]).startswith("raises:")
    assert not [each for each in (SECRET_TEXT, "a-secret-query") if each in page.text + json.dumps(line)]


def test_requests_are_measured_as_console(ann: FlaskClient) -> None:
    ann.get("/console/test/view?q=a-secret-query")
    exposed = ann.get("/metrics").text
    assert 'webhook_request_duration_seconds_count{endpoint="console",status="200"}' in exposed
    assert "a-secret-query" not in exposed


def test_bad_setting_closes_the_console_alone(
    make_app: MakeApp, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    client = make_app(console=SettingsError("CONSOLE_TOKENS is bad")).test_client()
    for path in ("/console", "/console/", "/console/login", "/console/x/y"):
        response = client.get(path)
        assert (response.status_code, "CONSOLE_TOKENS" in response.text) == (503, False)
    assert client.post("/console/login", headers=SAME_ORIGIN).status_code == 503
    assert client.get("/healthz").status_code == 200
    assert [line["cause"] for line in log_lines() if line["level"] == "error"] == ["CONSOLE_TOKENS is bad"]


def test_requests_of_the_console_make_no_span(make_console: Callable[..., FlaskClient]) -> None:
    """A span could hold the address with its query string."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    console = make_console(provider.get_tracer("webhook"))
    for path in ("/console/test/view?text=a-secret-query", "/console/test/reads/parked_events", "/console/test/raises"):
        console.get(path, headers=bearer())
    assert exporter.get_finished_spans() == ()
