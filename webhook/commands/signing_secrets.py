"""Deliveries per signing secret, from the metrics of a worker on this machine.

During a rotation STRIPE_WEBHOOK_SECRET is ``<new>,<old>``, and Stripe may sign a delivery with both. The worker tries
the secrets in this order, so such a delivery counts for the first.
https://docs.stripe.com/webhooks#roll-endpoint-secrets
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
_LONGEST_OVERLAP = 24 * 3600
"""Seconds for which a rolled secret stays valid at most."""


class MetricsUnavailableError(Exception):
    """The worker's metrics cannot be read; the message gives the cause."""


@dataclass
class Usage:
    """What the running worker verified with one secret."""

    deliveries: int = 0
    last_used: float = 0.0
    """Unix time in seconds; 0 = never."""


def usage_lines(environ: Environment = os.environ) -> list[str]:
    """Return one line per secret of STRIPE_WEBHOOK_SECRET.

    Raises :class:`MetricsUnavailableError`, or :class:`webhook.settings.SettingsError`.
    """
    names = [ordinal(position) for position in range(len(read_webhook_secrets(environ)))]
    metrics = _fetch_metrics(read_server_settings(environ).port, read_metrics_token(environ))
    usage = _usage_by_name(metrics)
    first = usage.get(names[0], Usage())
    return [_line(name, usage.get(name, Usage()), None if name == names[0] else first) for name in names]


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
        raise MetricsUnavailableError(f"{url} requires another METRICS_TOKEN")
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
    for sample in (sample for metric in metrics for sample in metric.samples):
        usage = found.setdefault(sample.labels.get("secret", ""), Usage())
        match sample.name:
            case "webhook_verified_deliveries_total":
                usage.deliveries = int(sample.value)
            case "webhook_secret_last_used_timestamp_seconds":
                usage.last_used = sample.value
            case _:
                pass
    return found


def _line(name: str, usage: Usage, first: Usage | None) -> str:
    last = f"{datetime.fromtimestamp(usage.last_used, UTC):%Y-%m-%d %H:%M:%S} UTC" if usage.last_used else "never"
    noun = "delivery" if usage.deliveries == 1 else "deliveries"
    line = f"signing secret {name}: {usage.deliveries} {noun} since the worker started, last used {last}"
    return f"{line}: {_advice(usage, first)}" if first else line


def _advice(usage: Usage, first: Usage) -> str:
    """Return whether a secret after the ``first`` can be removed."""
    if not first.last_used:
        return "it can be removed once the first is used" if not usage.last_used else "keep it until the first is used"
    if usage.last_used > first.last_used - _LONGEST_OVERLAP:
        return "keep it until only the first is used for a day"
    return "it can be removed"
