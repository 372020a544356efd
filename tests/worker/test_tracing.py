"""Spans of deliveries, and the worker without OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import responses
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import webhook.app
from support.databases import Database
from support.delivery import post
from support.ledger_queries import failing_with
from support.recorded import USER_ID, session_event
from support.waiting import eventually
from support.worker import sale, working
from webhook.observability.tracing import Tracing, load_exporter
from webhook.settings import StripeSettings

PRIVATE = "private@example.com"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def app(make_app: Callable[..., Flask], admin: psycopg.Connection, exporter: InMemorySpanExporter) -> Flask:
    admin.execute("insert into auth.users (id, email) values (%s, %s)", [USER_ID, PRIVATE])
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return make_app(provider.get_tracer("webhook"), stripe=StripeSettings("rk_test_1"))


def deliver(app: Flask, event: dict[str, Any]) -> None:
    post(app.test_client(), event)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_delivery_span_contains_the_spans_of_its_calls(
    app: Flask, exporter: InMemorySpanExporter, stripe_api: responses.RequestsMock
) -> None:
    """The calls are to Stripe's API and then to the database."""
    event = session_event(credits=None)
    url = f"https://api.stripe.com/v1/checkout/sessions/{event['data']['object']['id']}/line_items"
    stripe_api.get(url, json={"object": "list", "data": [], "has_more": False})
    deliver(app, event)
    *calls, delivery = exporter.get_finished_spans()
    assert [span.name for span in calls[:2]] == ["stripe", "database record"]
    assert delivery.name == "POST /webhook"
    assert {span.parent.span_id for span in calls if span.parent} == {delivery.context.span_id}
    assert attributes(delivery) == {
        "webhook.event_id": event["id"],
        "webhook.type": "checkout.session.completed",
        "webhook.outcome": "parked",
        "webhook.reason": "missing_credits",
    }


def test_unavailable_delivery_span_has_the_error_code_only(
    app: Flask, exporter: InMemorySpanExporter, admin: psycopg.Connection
) -> None:
    """The message of the database may contain values of a row."""
    admin.execute("revoke insert on public.transactions from service_role")
    deliver(app, session_event())
    *_, delivery = exporter.get_finished_spans()
    [recorded] = delivery.events
    assert dict(recorded.attributes or {}) == {
        "exception.type": "LedgerRefusedError",
        "exception.message": "SQLSTATE 42501 InsufficientPrivilege",
    }
    assert not delivery.status.is_ok


def test_unavailable_delivery_spans_omit_database_messages(
    app: Flask, exporter: InMemorySpanExporter, admin: psycopg.Connection
) -> None:
    """This includes the span of the call, whose error has the message as its cause."""
    admin.execute(failing_with(PRIVATE))
    deliver(app, session_event())
    spans = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(spans) == 2
    assert PRIVATE not in str(spans)


def test_bug_span_has_the_error_type_and_location_only(
    app: Flask, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of the error and of its cause are omitted."""

    def fail(*_: object) -> None:
        raise RuntimeError(PRIVATE) from ValueError(PRIVATE)

    monkeypatch.setattr("webhook.app.settle", fail)
    deliver(app, session_event())
    [delivery] = exporter.get_finished_spans()
    [recorded] = delivery.events
    assert recorded.attributes is not None
    assert recorded.attributes["exception.type"] == "RuntimeError"
    assert str(recorded.attributes["exception.stacktrace"]).startswith("fail:")
    assert PRIVATE not in delivery.to_json()


def test_rejected_delivery_span_has_the_reason(app: Flask, exporter: InMemorySpanExporter) -> None:
    """A rejected delivery is not an error of the worker."""
    app.test_client().post("/webhook", data=b"{}")
    [delivery] = exporter.get_finished_spans()
    assert attributes(delivery) == {"webhook.outcome": "rejected", "webhook.reason": "no_signature"}
    assert not delivery.events


def test_other_requests_have_no_spans(app: Flask, exporter: InMemorySpanExporter) -> None:
    """Hosts request /healthz all day."""
    app.test_client().get("/healthz")
    assert exporter.get_finished_spans() == ()


def test_worker_without_tracing_imports_no_sdk() -> None:
    """Only OpenTelemetry's API is imported."""
    program = "import sys, webhook.app; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert type(Tracing().span("POST /webhook", SpanKind.SERVER)) is nullcontext


def test_worker_without_the_extra_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's no-op spans would cost time in each delivery."""
    made: list[str] = []
    for name, value in {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "STRIPE_WEBHOOK_SECRET": "whsec_1",
        "STRIPE_LIVEMODE": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(webhook.app, "worker_tracer", lambda: made.append("tracer"))
    monkeypatch.setitem(sys.modules, "webhook.observability.exporter", None)
    webhook.app.from_environment()
    assert made == []


def test_tracing_without_the_extra_logs_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker starts without tracing, and the warning names the extra to install."""
    monkeypatch.delitem(sys.modules, "webhook.observability.exporter", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert load_exporter() is None
    assert "stripe-credits-webhook[otel]" in capsys.readouterr().out


class Collector(BaseHTTPRequestHandler):
    """Records the requests of an exporter."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_spans_of_real_processes_reach_the_collector(database: Database, tmp_path: Path) -> None:
    """The exporter runs in the worker processes, not in the process that started them."""
    received: list[tuple[str, bytes]] = []
    with HTTPServer(("127.0.0.1", 0), type("Handler", (Collector,), {"received": received})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with working(database.url, tmp_path, **variables) as worker:
            worker.deliver(sale(USER_ID, "traced"))
            eventually(lambda: any(b"evt_traced" in body for _, body in received))  # spans of /readyz may come first
        server.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    assert all(b"webhook" in body for _, body in received)
