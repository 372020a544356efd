"""A clock for many timeouts: one look at all waits, ten times a second, costs less than a timer for each of them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from time import sleep

RESOLUTION = 0.1
"""Seconds between two ticks."""


class Clock:
    """Calls ``tick`` every 0.1 s in a thread of its own, until ``tick`` returns that nothing waits."""

    def __init__(self, tick: Callable[[], bool]) -> None:
        self._tick = tick
        self._is_running = False
        self._lock = Lock()

    def start(self) -> None:
        """Begin to tick, unless the clock already does. Call this after each beginning of a wait."""
        if self._is_running:
            return
        with self._lock:
            is_first, self._is_running = not self._is_running, True
        if is_first:
            Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            sleep(RESOLUTION)
            while self._tick():
                sleep(RESOLUTION)
        finally:
            self._is_running = False
        if self._tick():  # a wait that began after the last tick saw a running clock
            self.start()
