"""What the worker counts and times, for Prometheus: https://prometheus.io/docs/practices/naming/.

Where gunicorn runs several processes, each writes its values to a file of its own in one folder (``process_files.py``),
and whichever is asked reads them all. Elsewhere they stand in this process, in a registry of the application's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import stripe
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from webhook import __version__
from webhook.events.interpret import HANDLED_EVENTS
from webhook.events.signature import Rejection
from webhook.ledger.schema import expected_version

OTHER = "other"
"""Stands for what outsiders or Stripe could make any number of: types of events, paths."""

_ENDPOINTS = {"/webhook": "webhook", "/healthz": "healthz", "/readyz": "readyz", "/metrics": "metrics"}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TYPES = frozenset(HANDLED_EVENTS)


def bounded_type(event_type: str) -> str:
    """Return the type of an event that the worker reads, ``other`` for any other."""
    return event_type if event_type in _TYPES else OTHER


class Metrics:
    """All that is counted and timed; safe to share between threads, and to make before a fork."""

    def __init__(self, folder: str | None = None) -> None:
        """``folder`` is where the processes of one gunicorn write, ``None`` for a process alone."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # several processes have none
        self._folder = folder
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry, buckets=_SECONDS)
        gauge = partial(Gauge, registry=self._registry)

        # Looking a series up by its labels takes longer than adding to it: there are few, so they are kept at hand.
        self._deliveries = cache(
            counter(
                "webhook_deliveries", "Verified deliveries, by what became of them.", ["type", "outcome", "reason"]
            ).labels
        )
        self._failures = cache(
            counter(
                "webhook_verification_failures",
                "Deliveries that are not Stripe's, or no event: answered 400.",
                ["cause"],
            ).labels
        )
        self._last_delivery = gauge(
            "webhook_last_delivery_timestamp_seconds",
            "When a delivery was last verified; 0 before the first.",
            multiprocess_mode="max",
        )
        self._requests = cache(
            histogram(
                "webhook_request_duration_seconds", "From a request's head to its answer.", ["endpoint", "status"]
            ).labels
        )
        self._calls = cache(
            histogram(
                "webhook_database_call_duration_seconds",
                "A call of the database, with the wait for a connection and a second try.",
                ["call", "result"],
            ).labels
        )
        self._connections = cache(
            gauge(
                "webhook_database_connections",
                "Connections to the database by process (pid, from 1) and state (in_use, idle).",
                ["state"],
                multiprocess_mode="liveall",
            ).labels
        )
        self._questions = cache(
            histogram(
                "webhook_stripe_call_duration_seconds", "A request to Stripe's API, with its second try.", ["result"]
            ).labels
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what alerts look at before it happens: the first of a kind is no increase, where there was nothing."""
        for status in (200, 400, 500, 503):
            self._requests("webhook", str(status))
        for result in ("ok", "error"):
            self._questions(result)
        for rejection in Rejection:
            self._failures(rejection.cause)

    def settled(self, event_type: str, outcome: str, reason: str, at: float) -> None:
        """Count what became of a verified delivery; ``at`` is now, in seconds since 1970."""
        self._deliveries(bounded_type(event_type), outcome, reason).inc()
        self._last_delivery.set(at)

    def refused(self, rejection: Rejection) -> None:
        """Count a delivery that is not Stripe's, or no event."""
        self._failures(rejection.cause).inc()

    def answered(self, path: str, status: str, seconds: float) -> None:
        """Time a request by its path and the status of its answer."""
        self._requests(_ENDPOINTS.get(path, OTHER), status).observe(seconds)

    def called(self, call: str, result: str, seconds: float) -> None:
        """Time a call of the database, named after its function in ``billing``."""
        self._calls(call, result).observe(seconds)

    def connection_taken(self) -> None:
        """Note that one more connection is in use."""
        self._connections("in_use").inc()

    def connection_returned(self, idle: int) -> None:
        """Note that one connection less is in use, and how many are idle now."""
        self._connections("in_use").dec()
        self._connections("idle").set(idle)

    def asked_stripe(self, result: str, seconds: float) -> None:
        """Time a request to Stripe's API."""
        self._questions(result).observe(seconds)

    def exposed(self, parked: int | None) -> bytes:
        """Return everything as Prometheus reads it; ``parked`` is ``None`` where the database did not say."""
        now, counted = CollectorRegistry(), self._registry
        now.register(_Now(parked))
        if self._folder:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(counted) + generate_latest(now)


class _Now(Collector):
    """What is not counted by the processes but known when asked: nothing of it goes into their files."""

    def __init__(self, parked: int | None) -> None:
        self._parked = parked

    def collect(self) -> Iterator[Metric]:
        versions = {"version": __version__, "schema": expected_version(), "stripe": stripe.VERSION}
        build = GaugeMetricFamily("webhook_build_info", "What runs here.", labels=list(versions))
        build.add_metric(list(versions.values()), 1)
        yield build
        yield GaugeMetricFamily(
            "webhook_database_up", "Whether the database answered within a second.", self._parked is not None
        )
        if self._parked is not None:
            yield GaugeMetricFamily("webhook_parked_events", "Events that wait for somebody.", self._parked)
