"""The counts that come from the database, for a scrape that must not wait long for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import CurrentCounts

_TIMEOUT = 1.0
"""Seconds. A query on a database that hangs times out after ten, and so does a scrape of Prometheus."""


class DatabaseCounts:
    """Counts with one query at a time, however many scrapes wait for the answer."""

    def __init__(self, count: Callable[[], CurrentCounts]) -> None:
        """``count`` runs the query; it may raise :class:`LedgerUnavailableError`."""
        self._count = count
        self._lock = threading.Lock()
        self._running: Future[CurrentCounts] | None = None

    def __call__(self) -> CurrentCounts | None:
        """Return the counts, ``None`` if the database does not answer within a second."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            running = self._running
        try:
            return running.result(_TIMEOUT)
        except (LedgerUnavailableError, TimeoutError):
            return None

    def _run(self, running: Future[CurrentCounts]) -> None:
        try:
            running.set_result(self._count())
        except BaseException as error:  # noqa: BLE001 - every waiting scrape raises it
            running.set_exception(error)
