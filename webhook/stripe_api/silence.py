"""A notice for the operator while Stripe does not answer: a request with its retries may take minutes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from webhook.stripe_api.errors import StripeUnavailableError

SILENCE = 10.0
"""Seconds without any response of Stripe after which it is reported."""


class Silence:
    """Calls ``report`` once if Stripe has not answered any request for :data:`SILENCE` seconds."""

    def __init__(self, report: Callable[[], None]) -> None:
        self._timer = threading.Timer(SILENCE, report)
        self._timer.daemon = True
        self._lock = threading.Lock()

    @contextmanager
    def during(self) -> Iterator[None]:
        """Watch one request. The first response ends the watch, an error of Stripe's included."""
        with self._lock:
            if self._timer.ident is None:
                self._timer.start()
        try:
            yield
        except StripeUnavailableError as error:
            if error.status is not None:
                self.end()
            raise
        else:
            self.end()

    def end(self) -> None:
        """End the watch."""
        self._timer.cancel()
