"""Bulk reads for `reconcile` and `audit`: they wait and retry for minutes if Stripe is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
)
from tenacity.wait import wait_base, wait_random_exponential

from webhook.events.fields import JSONObject
from webhook.settings import StripeSettings
from webhook.stripe_api.client import StripeAPI
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.kinds import INVOICE_PAYMENTS_PATH, payments_in
from webhook.stripe_api.silence import Silence
from webhook.stripe_api.transport import OPERATOR_TIMEOUT, pages, path_segment

_MAX_CONCURRENT = 8
"""Requests in progress: at a tenth of a second each, they stay below Stripe's limit of 100 a second.

https://docs.stripe.com/rate-limits
"""
_RETRY_SECONDS = 180
"""How long one request is retried."""
_MAX_BACKOFF = 20
"""Seconds between two attempts."""
_MAX_RETRY_AFTER = 60
"""The longest wait that Stripe's Retry-After can cause, in seconds."""


class StripeReader(StripeAPI):
    """Reads objects and lists as plain JSON and retries failed requests; safe to share between threads.

    A read raises :class:`StripeUnavailableError` once its retries are used up.
    """

    def __init__(
        self,
        settings: StripeSettings,
        report_silence: Callable[[], None] = lambda: None,
        *,
        timeout: tuple[float, float] = OPERATOR_TIMEOUT,
    ) -> None:
        """``report_silence`` is called if Stripe does not answer: see :class:`Silence`."""
        super().__init__(settings, timeout=timeout, retries=0, max_concurrent=_MAX_CONCURRENT)
        self._silence = Silence(report_silence)
        self._stopped = threading.Event()
        self._count_lock = threading.Lock()
        self.requests = 0
        """Number of requests made, retries included."""

    def stop(self) -> None:
        """End all waits: from now on each request is tried once."""
        self._stopped.set()
        self._silence.end()

    def pages(self, account: str | None, path: str, **parameters: Any) -> Iterator[list[JSONObject]]:
        """Yield the pages of a list, newest objects first."""
        return pages(partial(self._get, account, path), **parameters)

    def created(
        self, account: str | None, path: str, since: int, until: int, **parameters: Any
    ) -> Iterator[list[JSONObject]]:
        """Yield the pages of objects created from ``since`` to before ``until``, both in seconds since 1970."""
        return self.pages(account, path, created={"gte": since, "lt": until}, **parameters)

    def get(self, account: str | None, path: str, object_id: str, **parameters: Any) -> JSONObject | None:
        """Return one object of the list at ``path``, ``None`` if Stripe does not have it."""
        try:
            source: JSONObject = self._get(account, f"{path}/{path_segment(object_id)}", **parameters)
        except StripeUnavailableError as error:
            if error.is_missing_resource:
                return None
            raise
        return source

    def search(self, account: str | None, path: str, query: str, **parameters: Any) -> list[JSONObject]:
        """Return the first 100 objects that a query finds: https://docs.stripe.com/search."""
        response = self._get(account, f"{path}/search", query=query, limit=100, **parameters)
        try:
            return list(response["data"])
        except (KeyError, TypeError):
            raise StripeUnavailableError("Stripe's response is not a list") from None

    def with_all_payments(self, account: str | None, source: JSONObject) -> JSONObject:
        """Return the object with all its payments: an invoice contains only the first ten."""
        if not (payments_in(source) and source["payments"].get("has_more")):
            return source
        payments = self.pages(account, INVOICE_PAYMENTS_PATH, invoice=source["id"])
        return source | {"payments": {"data": [payment for page in payments for payment in page]}}

    def _get(self, account: str | None, path: str, **parameters: Any) -> Any:
        try:
            return self._retrying()(super()._get, account, path, **parameters)
        except StripeUnavailableError:
            self._silence.end()  # the caller reports the error
            raise

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._slots:
            with self._count_lock:
                self.requests += 1
            with self._silence.during():
                yield

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_is_retryable),
            wait=partial(_wait_seconds, wait_random_exponential(multiplier=0.5, max=_MAX_BACKOFF)),
            stop=stop_any(stop_after_delay(_RETRY_SECONDS), stop_when_event_set(self._stopped)),
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )


def _wait_seconds(backoff: wait_base, state: RetryCallState) -> float:
    """Return the seconds until the next attempt: the backoff, or longer if Stripe requests it."""
    error = state.outcome and state.outcome.exception()
    retry_after = error.retry_after if isinstance(error, StripeUnavailableError) else 0
    return max(backoff(state), min(retry_after, _MAX_RETRY_AFTER))


def _is_retryable(error: BaseException) -> bool:
    """Whether a retry may succeed: by Stripe's advice, else after a conflict, a rate limit, a 5xx or no response."""
    if not isinstance(error, StripeUnavailableError):
        return False
    if error.should_retry is not None:
        return error.should_retry
    temporary = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    return error.status is None or error.status in temporary or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
