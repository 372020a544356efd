"""Deliveries per signing secret, from the metrics of a worker on this machine.

During a rotation STRIPE_WEBHOOK_SECRET is ``<new>,<old>``, and Stripe may sign a delivery with both. The worker tries
the secrets in this order, so such a delivery counts for the first. https://docs.stripe.com/webhooks#roll-endpoint-secrets

Only the operator knows whether a secret is old or belongs to another endpoint. So no line advises to remove one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from webhook.observability.metrics import ordinal
from webhook.settings import Environment, read_metrics_token, read_server_settings, read_webhook_secrets

_TIMEOUT = (1.0, 3.0)
"""Seconds to connect, and to wait for data."""
_SEVERAL = (
    "signing secrets: the old one of a rotation can go once the new one is used and the count of the old one stays the "
    "same, on every machine"
)


class MetricsUnavailableError(Exception):
    """The worker's metrics cannot be read; the message gives the cause."""


@dataclass
class Usage:
    """What the running worker verified with one secret."""

    deliveries: int = 0
    last_used: float = 0.0
    """Unix time in seconds; 0 = never."""


def usage_lines(environ: Environment = os.environ) -> list[str]:
    """Return one line per secret of STRIPE_WEBHOOK_SECRET; for several, one more on when an old one can go.

    Raises :class:`MetricsUnavailableError`, or :class:`webhook.settings.SettingsError`.
    """
    names = [ordinal(position) for position in range(len(read_webhook_secrets(environ)))]
    usage = _usage_by_name(_fetch_metrics(read_server_settings(environ).port, read_metrics_token(environ)))
    if set(usage) != set(names):
        raise MetricsUnavailableError(
            f"the worker has {len(usage)} secrets, STRIPE_WEBHOOK_SECRET has {len(names)}: restart the worker"
        )
    return [*(_line(name, usage[name]) for name in names), *([_SEVERAL] if len(names) > 1 else [])]


def _fetch_metrics(port: int, token: str | None) -> list[Metric]:
    url = f"http://127.0.0.1:{port}/metrics"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy does not reach this machine, and .netrc would replace the token
            response = session.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
    except requests.RequestException:
        raise MetricsUnavailableError(f"no worker answers at {url}") from None
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise MetricsUnavailableError(f"{url} rejects METRICS_TOKEN")
    if response.status_code != HTTPStatus.OK:
        raise MetricsUnavailableError(f"{url} answers {response.status_code}")
    try:
        metrics = list(text_string_to_metric_families(response.text))
    except ValueError:
        metrics = []
    if not any(metric.name.startswith("webhook_") for metric in metrics):
        raise MetricsUnavailableError(f"{url} does not contain the worker's metrics")
    return metrics


def _usage_by_name(metrics: Iterable[Metric]) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for sample in (sample for metric in metrics for sample in metric.samples if "secret" in sample.labels):
        usage = found.setdefault(sample.labels["secret"], Usage())
        match sample.name:
            case "webhook_verified_deliveries_total":
                usage.deliveries = int(sample.value)
            case "webhook_secret_last_used_timestamp_seconds":
                usage.last_used = sample.value
            case _:
                pass
    return found


def _line(name: str, usage: Usage) -> str:
    last = f"{datetime.fromtimestamp(usage.last_used, UTC):%Y-%m-%d %H:%M:%S} UTC" if usage.last_used else "never"
    noun = "delivery" if usage.deliveries == 1 else "deliveries"
    return f"signing secret {name}: {usage.deliveries} {noun} since the worker started, last used {last}"
