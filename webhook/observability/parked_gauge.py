"""How many events wait, for whoever must not wait long for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from webhook.ledger.errors import LedgerUnavailableError

_PATIENCE = 1.0
"""Seconds. A database that hangs is given up on after ten; Prometheus gives up on us after as many."""


class ParkedGauge:
    """Asks the database, one question at a time, however many are waiting for its answer."""

    def __init__(self, count: Callable[[], int]) -> None:
        """``count`` asks, and may raise :class:`LedgerUnavailableError`."""
        self._count = count
        self._lock = threading.Lock()
        self._asked: Future[int] | None = None

    def __call__(self) -> int | None:
        """Return how many wait, ``None`` where the database does not say within a second."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(target=self._ask, args=(self._asked,), daemon=True).start()
            asked = self._asked
        try:
            return asked.result(_PATIENCE)
        except (LedgerUnavailableError, TimeoutError):
            return None

    def _ask(self, asked: Future[int]) -> None:
        try:
            asked.set_result(self._count())
        except BaseException as error:  # noqa: BLE001 - it is raised again, by whoever waits
            asked.set_exception(error)
