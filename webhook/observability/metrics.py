"""The worker's metrics for Prometheus: https://prometheus.io/docs/practices/naming/.

Under gunicorn each process writes its values to its own files in one directory (``multiprocess.py``). Any process can
report the sum. Without gunicorn the values are in a registry of the application.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import stripe
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from webhook import __version__
from webhook.events.interpret import HANDLED_EVENTS
from webhook.events.signature import Rejection
from webhook.ledger.ledger import CurrentCounts
from webhook.ledger.schema import expected_version

OTHER = "other"
"""The label of unknown event types and paths: senders could make up any number of them."""

WEBHOOK_PATHS = ("/webhook", "/webhook/")
_ENDPOINTS = dict.fromkeys(WEBHOOK_PATHS, "webhook") | {
    "/healthz": "healthz",
    "/readyz": "readyz",
    "/metrics": "metrics",
}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds."""
_TYPES = frozenset(HANDLED_EVENTS)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def bounded_type(event_type: str) -> str:
    """Return the event type if the worker handles it, else ``other``."""
    return event_type if event_type in _TYPES else OTHER


def ordinal(position: int) -> str:
    """Return ``first`` for 0, ``second`` for 1, …; numbers such as ``11th`` follow ``tenth``."""
    return _ORDINALS[position] if position < len(_ORDINALS) else f"{position + 1}th"


def _endpoint_of(path: str) -> str:
    """Return the label of a path that is not an endpoint of its own."""
    return "console" if f"{path}/".startswith("/console/") else OTHER


class Metrics:
    """All counters, gauges and histograms. They are thread-safe, and may be created before a fork."""

    def __init__(self, directory: str | None = None, *, secrets: int = 1) -> None:
        """``directory`` is that of gunicorn's processes. ``secrets`` is the number of signing secrets."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # the multiprocess mode does not support them
        self._directory = directory
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry, buckets=_BUCKETS)
        gauge = partial(Gauge, registry=self._registry)

        # To look up a series by its labels takes longer than to add to it. There are few series, so they are cached.
        self._deliveries = cache(
            counter("webhook_deliveries", "Verified deliveries by outcome.", ["type", "outcome", "reason"]).labels
        )
        self._failures = cache(
            counter(
                "webhook_verification_failures",
                "Deliveries answered 400 or 404: not signed by Stripe, not an event, or to a wrong path.",
                ["reason"],
            ).labels
        )
        self._last_delivery = gauge(
            "webhook_last_delivery_timestamp_seconds",
            "Time of the last verified delivery; 0 before the first.",
            multiprocess_mode="max",
        )
        verified = counter(
            "webhook_verified_deliveries",
            "Deliveries by the position in STRIPE_WEBHOOK_SECRET of the secret that signed them.",
            ["secret"],
        )
        last_used = gauge(
            "webhook_secret_last_used_timestamp_seconds",
            "Time of the last delivery that the secret signed; 0 before the first.",
            ["secret"],
            multiprocess_mode="max",
        )
        names = [ordinal(position) for position in range(secrets)]
        self._secrets = [(verified.labels(name), last_used.labels(name)) for name in names]
        self._requests = cache(
            histogram(
                "webhook_request_duration_seconds",
                "Time from the head of a request to its answer.",
                ["endpoint", "status"],
            ).labels
        )
        self._database_calls = cache(
            histogram(
                "webhook_database_call_duration_seconds",
                "Time of a database call, including the wait for a connection and a retry.",
                ["call", "result"],
            ).labels
        )
        self._connections = cache(
            gauge(
                "webhook_database_connections",
                "Database connections by process (pid, from 1) and state (in_use, idle).",
                ["state"],
                multiprocess_mode="liveall",
            ).labels
        )
        self._stripe_requests = cache(
            histogram(
                "webhook_stripe_request_duration_seconds",
                "Time of a request to Stripe's API, including a retry.",
                ["result"],
            ).labels
        )
        self._failed_logins = counter("webhook_console_failed_logins", "Failed logins of the console.")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Create the series that alerts use. ``increase()`` misses the first event of a series that did not exist."""
        for status in (200, 400, 500, 503):
            self._requests("webhook", str(status))
        for result in ("ok", "error"):
            self._stripe_requests(result)
        for rejection in Rejection:
            self._failures(rejection.reason)

    def count_verified(self, secret: int, now: float) -> None:
        """Count a verified delivery by the position of its secret, 0 for the first; ``now`` is in Unix seconds."""
        verified, last_used = self._secrets[secret]
        verified.inc()
        last_used.set(now)

    def count_delivery(self, event_type: str, outcome: str, reason: str, now: float) -> None:
        """Count a verified delivery by its outcome; ``now`` is in Unix seconds."""
        self._deliveries(bounded_type(event_type), outcome, reason).inc()
        self._last_delivery.set(now)

    def count_rejection(self, rejection: Rejection) -> None:
        """Count a delivery that is answered 400."""
        self._failures(rejection.reason).inc()

    def count_failed_login(self) -> None:
        """Count a failed login of the console."""
        self._failed_logins.inc()

    def time_request(self, path: str, status: str, seconds: float) -> None:
        """Record the duration of a request by its path and the status of its answer."""
        self._requests(_ENDPOINTS.get(path) or _endpoint_of(path), status).observe(seconds)

    def time_database_call(self, call: str, result: str, seconds: float) -> None:
        """Record the duration of a database call by its function in ``billing``."""
        self._database_calls(call, result).observe(seconds)

    def connection_taken(self) -> None:
        """Count one more connection as in use."""
        self._connections("in_use").inc()

    def connection_returned(self, idle: int) -> None:
        """Count one connection less as in use, and set how many are idle."""
        self._connections("in_use").dec()
        self._connections("idle").set(idle)

    def time_stripe_request(self, result: str, seconds: float) -> None:
        """Record the duration of a request to Stripe's API."""
        self._stripe_requests(result).observe(seconds)

    def render(self, counts: CurrentCounts | None) -> bytes:
        """Return all metrics in Prometheus's text format; ``counts`` is ``None`` if the database did not answer."""
        current, counted = CollectorRegistry(), self._registry
        current.register(_CurrentState(counts))
        if self._directory:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(counted) + generate_latest(current)


class _CurrentState(Collector):
    """Values that are read at each scrape. They are not written to the files of the processes."""

    def __init__(self, counts: CurrentCounts | None) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        versions = {"version": __version__, "schema": expected_version(), "stripe": stripe.VERSION}
        build = GaugeMetricFamily("webhook_build_info", "Versions of the running worker.", labels=list(versions))
        build.add_metric(list(versions.values()), 1)
        yield build
        yield GaugeMetricFamily(
            "webhook_database_up", "Whether the database answered within a second.", self._counts is not None
        )
        if self._counts is not None:
            yield GaugeMetricFamily(
                "webhook_parked_events", "Parked events that are not resolved.", self._counts.parked
            )
            yield _operator_credits(self._counts)


def _operator_credits(counts: CurrentCounts) -> Metric:
    credits_ = CounterMetricFamily(
        "webhook_operator_credits", "Credits that operators gave or took by hand.", labels=["direction"]
    )
    credits_.add_metric(["given"], counts.credits_given)
    credits_.add_metric(["taken"], counts.credits_taken)
    return credits_
