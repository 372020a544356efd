"""Lookups of the worker, for events that do not contain all that is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any

from cachetools import TTLCache

from webhook.events.lookups import (
    ChargeRefunds,
    InvoiceLines,
    Lookup,
    MissingObjectError,
    PaymentSessions,
    Price,
    ReadablePrice,
    RelatedObject,
    Resolve,
    SessionLines,
)
from webhook.settings import StripeSettings
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.transport import DEFAULT_RETRIES, all_pages, new_client, path_segment, request

CallHook = Callable[[], AbstractContextManager[None]]
"""Returns a context manager in which one request runs, to measure it."""

_TIMEOUT = (2.0, 3.0)
"""Seconds to connect and to wait for a response: Checkout waits 10 seconds for the worker's."""
_MAX_CONCURRENT = 6
"""Requests in progress per process: a slow Stripe holds up at most so many deliveries."""
_CACHED_PRICES = 1000
_CACHE_SECONDS = 300


class StripeAPI:
    """Resolves lookups as plain JSON; safe to share between threads."""

    def __init__(
        self,
        settings: StripeSettings,
        hook: CallHook = nullcontext,
        *,
        timeout: tuple[float, float] = _TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        max_concurrent: int = _MAX_CONCURRENT,
    ) -> None:
        self._hook = hook
        self._client = new_client(settings, timeout, retries)
        self._slots = threading.BoundedSemaphore(max_concurrent)
        self._prices: TTLCache[tuple[str | None, str], Any] = TTLCache(_CACHED_PRICES, _CACHE_SECONDS)
        self._prices_lock = threading.Lock()

    def resolver(self, account: str | None = None) -> Resolve:
        """Return the function that resolves lookups in a connected account, or in the key's own if ``None``.

        The function raises :class:`MissingObjectError` or :class:`StripeUnavailableError`.
        """
        return partial(self._resolve, account)

    def _resolve(self, account: str | None, lookup: Lookup) -> Any:
        try:
            return self._request(account, lookup)
        except StripeUnavailableError as error:
            if error.is_missing_resource:
                raise MissingObjectError from error
            raise

    def _request(self, account: str | None, lookup: Lookup) -> Any:  # noqa: PLR0911 - one line a case
        match lookup:
            case SessionLines(session_id):
                return self._list(account, f"/v1/checkout/sessions/{path_segment(session_id)}/line_items")
            case InvoiceLines(invoice_id):
                return self._list(account, f"/v1/invoices/{path_segment(invoice_id)}/lines")
            case ChargeRefunds(charge_id):
                return self._list(account, "/v1/refunds", charge=charge_id)
            case PaymentSessions(payment_id):
                return self._list(account, "/v1/checkout/sessions", payment_intent=payment_id)
            case RelatedObject(path):
                return self._get(account, path)
            case Price(price_id):
                return self._price(account, price_id)
            case ReadablePrice(price_id):
                return self._readable_price(account, price_id)

    def _price(self, account: str | None, price_id: str) -> Any:
        key = (account, price_id)
        with self._prices_lock:
            if key in self._prices:
                return self._prices[key]
        price = self._get(account, f"/v1/prices/{path_segment(price_id)}", expand=["product"])
        with self._prices_lock:
            self._prices[key] = price
        return price

    def _readable_price(self, account: str | None, price_id: str) -> Any:
        try:
            return self._price(account, price_id)
        except StripeUnavailableError as error:
            if error.is_missing_resource or error.status == HTTPStatus.FORBIDDEN:
                return None
            raise

    def _list(self, account: str | None, path: str, **parameters: Any) -> list[Any]:
        return all_pages(partial(self._get, account, path), **parameters)

    def _get(self, account: str | None, path: str, **parameters: Any) -> Any:
        with self._slot(), self._hook():
            return request(self._client, "get", path, stripe_account=account, **parameters)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold one slot for a request; if all are in use, fail at once, so that Stripe redelivers the event later."""
        if not self._slots.acquire(blocking=False):
            raise StripeUnavailableError("too many requests to Stripe are in progress")
        try:
            yield
        finally:
            self._slots.release()


def stripe_api(settings: StripeSettings | None, hook: CallHook = nullcontext) -> StripeAPI | None:
    """Return the client for these settings, ``None`` without a key."""
    return StripeAPI(settings, hook) if settings else None
