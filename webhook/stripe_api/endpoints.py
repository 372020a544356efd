"""Webhook endpoints and the key's permissions, for the commands of an operator; the worker itself never writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from webhook.settings import StripeSettings
from webhook.stripe_api.silence import Silence
from webhook.stripe_api.transport import OPERATOR_TIMEOUT, all_pages, new_client, request


class StripeOperator:
    """Reads and creates endpoints, as plain JSON. Methods may raise :class:`StripeUnavailableError`."""

    def __init__(self, settings: StripeSettings, report_silence: Callable[[], None] = lambda: None) -> None:
        """``report_silence`` is called if Stripe does not answer: see :class:`Silence`."""
        self._client = new_client(settings, OPERATOR_TIMEOUT)
        self._silence = Silence(report_silence)

    def endpoints(self) -> list[Any]:
        """Return all endpoints: https://docs.stripe.com/api/webhook_endpoints/list."""
        return all_pages(partial(self._request, "get", "/v1/webhook_endpoints"))

    def create_endpoint(self, **parameters: Any) -> Any:
        """Return the new endpoint, with its ``secret``: https://docs.stripe.com/api/webhook_endpoints/create."""
        return self._request("post", "/v1/webhook_endpoints", **parameters)

    def try_list(self, path: str) -> None:
        """Request one object of a list, to find out whether the key has the permission."""
        self._request("get", path, limit=1)

    def _request(self, method: str, path: str, **parameters: Any) -> Any:
        try:
            with self._silence.during():
                return request(self._client, method, path, **parameters)
        finally:
            self._silence.end()
