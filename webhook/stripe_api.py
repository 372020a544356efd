"""Stripe's API, asked only where an event alone is not enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from cachetools import TTLCache
from stripe import RequestsClient, StripeClient, StripeError

from webhook.questions import Ask, ChargeRefunds, InvoiceLines, Price, Question, RelatedObject, SessionLines
from webhook.settings import StripeSettings

_TIMEOUT = (2.0, 3.0)
"""Seconds to connect, and to wait for an answer: Checkout waits 10 for ours."""
_RETRIES = 1
_AT_ONCE = 6
"""Questions under way in a process: fewer than its threads (8), so that the other deliveries go on."""
_PRICES_KEPT = 1000
_SECONDS_KEPT = 300
_PAGE = 100


class StripeUnavailable(Exception):  # noqa: N818
    """Stripe's API does not answer now, or not with this key; the message says which, without data of any delivery."""


class StripeAPI:
    """Answers questions as plain JSON; safe to share between threads."""

    def __init__(self, settings: StripeSettings) -> None:
        """Nothing is asked yet."""
        self._client = StripeClient(
            settings.api_key,
            http_client=RequestsClient(timeout=_TIMEOUT),
            max_network_retries=_RETRIES,
            base_addresses={"api": settings.base} if settings.base else None,
        )
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._prices: TTLCache[tuple[str | None, str], Any] = TTLCache(_PRICES_KEPT, _SECONDS_KEPT)
        self._prices_lock = threading.Lock()

    def asker(self, account: str | None = None) -> Ask:
        """Return what answers questions about ``account``'s objects, by default our own."""
        return partial(self._answer, account)

    def _answer(self, account: str | None, question: Question) -> Any:
        match question:
            case SessionLines(session_id):
                return self._listed(account, f"/v1/checkout/sessions/{_in_path(session_id)}/line_items")
            case InvoiceLines(invoice_id):
                return self._listed(account, f"/v1/invoices/{_in_path(invoice_id)}/lines")
            case ChargeRefunds(charge_id):
                return self._listed(account, "/v1/refunds", charge=charge_id)
            case RelatedObject(path):
                return self._got(account, path)
            case Price(price_id):
                return self._price(account, price_id)

    def _price(self, account: str | None, price_id: str) -> Any:
        key = (account, price_id)
        with self._prices_lock:
            if key in self._prices:
                return self._prices[key]
        price = self._got(account, f"/v1/prices/{_in_path(price_id)}", expand=["product"])
        with self._prices_lock:
            self._prices[key] = price
        return price

    def _listed(self, account: str | None, path: str, **parameters: Any) -> list[Any]:
        """Return the objects of all pages: https://docs.stripe.com/api/pagination."""
        objects: list[Any] = []
        while True:
            page = self._got(account, path, limit=_PAGE, **parameters)
            try:
                objects += page["data"]
                if not page["has_more"]:
                    return objects
                parameters["starting_after"] = objects[-1]["id"]
            except (KeyError, TypeError, IndexError):
                raise StripeUnavailable("Stripe's answer is no list") from None

    def _got(self, account: str | None, path: str, **parameters: Any) -> Any:
        with self._place(), _translated_errors():
            response = self._client.raw_request("get", path, stripe_account=account, **parameters)
        if not isinstance(response.data, dict):
            raise StripeUnavailable("Stripe's answer is no object")
        return response.data

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for a question; who finds none is asked to come back."""
        if not self._places.acquire(blocking=False):
            raise StripeUnavailable("too many questions wait for Stripe")
        try:
            yield
        finally:
            self._places.release()


def stripe_api(settings: StripeSettings | None) -> StripeAPI | None:
    """Return the API as the settings describe it, ``None`` without a key."""
    return StripeAPI(settings) if settings else None


def _in_path(value: str) -> str:
    return quote(value, safe="")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except StripeError as error:
        status = f"status {error.http_status}" if error.http_status else "no answer"
        raise StripeUnavailable(f"Stripe: {type(error).__name__}, {status}") from error
