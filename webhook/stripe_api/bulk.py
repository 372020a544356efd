"""Stripe's API for a command that reads much of it: patient where the worker has to be quick."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
from webhook.reconcile.objects import INVOICE_PAYMENTS, payments_in
from webhook.settings import StripeSettings
from webhook.stripe_api.client import OPERATORS_TIMEOUT, StripeAPI, StripeUnavailableError, in_path, pages

_AT_ONCE = 8
"""Requests under way: at a tenth of a second each, under Stripe's limit of 100 a second.

https://docs.stripe.com/rate-limits
"""
_PATIENCE = 180
"""Seconds that one request is tried for."""
_LONGEST_WAIT = 20
_LONGEST_ASKED_FOR = 60
"""Seconds that Stripe is waited for where it asks for it."""


class StripeReader(StripeAPI):
    """Reads objects and lists as plain JSON, and waits where Stripe is busy; safe to share between threads."""

    def __init__(self, settings: StripeSettings) -> None:
        """Nothing is asked yet."""
        super().__init__(settings, timeout=OPERATORS_TIMEOUT, retries=0, at_once=_AT_ONCE)
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self.requests = 0
        """How many requests have been made, repeated ones too."""

    def stop(self) -> None:
        """Wait for nothing any more: what is asked from now on is asked once."""
        self._stopped.set()

    def pages(self, account: str | None, path: str, **parameters: Any) -> Iterator[list[JSONObject]]:
        """Yield the pages of a list, newest objects first; raises :class:`StripeUnavailableError`."""
        return pages(partial(self._got, account, path), **parameters)

    def created(
        self, account: str | None, path: str, since: int, until: int, **parameters: Any
    ) -> Iterator[list[JSONObject]]:
        """Yield the pages of what was created from ``since`` to before ``until``, in seconds, as :meth:`pages` does."""
        return self.pages(account, path, created={"gte": since, "lt": until}, **parameters)

    def get(self, account: str | None, path: str, object_id: str, **parameters: Any) -> JSONObject | None:
        """Return an object of the list at ``path``, ``None`` where Stripe has none (any more).

        Raises :class:`StripeUnavailableError`.
        """
        try:
            answer: JSONObject = self._got(account, f"{path}/{in_path(object_id)}", **parameters)
        except StripeUnavailableError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return answer

    def with_all_payments(self, account: str | None, source: JSONObject) -> JSONObject:
        """Return the object with all its payments, of which an invoice holds ten."""
        if not (payments_in(source) and source["payments"].get("has_more")):
            return source
        every = self.pages(account, INVOICE_PAYMENTS, invoice=source["id"])
        return source | {"payments": {"data": [payment for page in every for payment in page]}}

    def _got(self, account: str | None, path: str, **parameters: Any) -> Any:
        return self._patience()(super()._got, account, path, **parameters)

    @contextmanager
    def _place(self) -> Iterator[None]:
        with self._places:
            with self._counting:
                self.requests += 1
            yield

    def _patience(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_may_pass),
            wait=partial(_wait, wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT)),
            stop=stop_any(stop_after_delay(_PATIENCE), stop_when_event_set(self._stopped)),
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )


def _wait(by_ourselves: wait_base, state: RetryCallState) -> float:
    """Return for how many seconds to wait: by ourselves, or as long as Stripe asks for."""
    error = state.outcome and state.outcome.exception()
    asked_for = error.retry_after if isinstance(error, StripeUnavailableError) else 0
    return max(by_ourselves(state), min(asked_for, _LONGEST_ASKED_FOR))


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may be answered later: Stripe says so, is busy, in trouble, or not reached."""
    if not isinstance(error, StripeUnavailableError):
        return False
    if error.should_retry is not None:
        return error.should_retry
    passing = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    return error.status is None or error.status in passing or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
