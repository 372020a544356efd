"""Limits that keep the console from slowing deliveries down: requests at a time, and the time of a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from time import monotonic

from werkzeug.exceptions import ServiceUnavailable

MOST_REQUESTS = 2
"""Requests of the console that a process works on at a time."""
PAGE_SECONDS = 5.0
"""The time of a page, queries and requests to Stripe together."""
ACTION_SECONDS = 10.0
"""The time of a change. A bulk retry works for 5 seconds, and then counts what is left."""
LARGEST_FORM = 64 * 1024
"""Bytes of a request's body."""


class Slots:
    """At most :data:`MOST_REQUESTS` requests at a time."""

    def __init__(self) -> None:
        self._free = BoundedSemaphore(MOST_REQUESTS)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a slot; raise :class:`ServiceUnavailable` at once if none is free."""
        if not self._free.acquire(blocking=False):
            raise ServiceUnavailable("The console answers two requests at a time: reload this page in a moment.")
        try:
            yield
        finally:
            self._free.release()


class Deadline:
    """The end of a page's time."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """The remaining time in seconds, not below 0."""
        return max(self._end - monotonic(), 0.0)
