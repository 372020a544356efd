"""The number of parked events, for a scrape that must not wait long for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from webhook.ledger.errors import LedgerUnavailableError

_TIMEOUT = 1.0
"""Seconds. A query on a database that hangs times out after ten, and so does a scrape of Prometheus."""


class ParkedGauge:
    """Counts parked events with one query at a time, however many scrapes wait for the answer."""

    def __init__(self, count: Callable[[], int]) -> None:
        """``count`` runs the query; it may raise :class:`LedgerUnavailableError`."""
        self._count = count
        self._lock = threading.Lock()
        self._running: Future[int] | None = None

    def __call__(self) -> int | None:
        """Return the number of parked events, ``None`` if the database does not answer within a second."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            running = self._running
        try:
            return running.result(_TIMEOUT)
        except (LedgerUnavailableError, TimeoutError):
            return None

    def _run(self, running: Future[int]) -> None:
        try:
            running.set_result(self._count())
        except BaseException as error:  # noqa: BLE001 - every waiting scrape raises it
            running.set_exception(error)
