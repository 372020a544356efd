"""Stripe's API for webhook endpoints, as used by the commands: https://docs.stripe.com/api/webhook_endpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import requests
import responses

from support.stripe_api import BASE, page
from webhook.events.interpret import HANDLED_EVENTS

ENDPOINTS = f"{BASE}/v1/webhook_endpoints"
URL = "https://credits.example.com/webhook"
Answer = tuple[int, dict[str, str], str]


def endpoint(name: str = "we_1", **fields: Any) -> dict[str, Any]:
    """Return an endpoint that is configured correctly for this worker."""
    return {
        "id": name,
        "object": "webhook_endpoint",
        "api_version": "2026-10-28.endive",
        "application": None,
        "created": 1,
        "description": None,
        "enabled_events": list(HANDLED_EVENTS),
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": URL,
    } | fields


@dataclass
class Stripe:
    """Stores endpoints as Stripe does, and the parameters of each write."""

    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, mock: responses.RequestsMock) -> None:
        """Answer the requests to this mock."""
        mock.assert_all_requests_are_fired = False
        mock.add_callback("GET", ENDPOINTS, self._list)
        mock.add_callback("POST", ENDPOINTS, self._create)

    def _list(self, _: requests.PreparedRequest) -> Answer:
        return _ok(page(*self.endpoints.values()))

    def _create(self, request: requests.PreparedRequest) -> Answer:
        given = {name: values[0] for name, values in parse_qs(str(request.body)).items()}
        name = f"we_{len(self.endpoints) + 1}"
        self.writes.append(("", given))
        events = [value for key, value in given.items() if key.startswith("enabled_events")]
        made = endpoint(name, url=given["url"], enabled_events=events, api_version=given.get("api_version"))
        self.endpoints[name] = made
        return _ok(made | {"secret": f"whsec_{name}"})


def _ok(body: dict[str, Any]) -> Answer:
    return 200, {}, json.dumps(body)
