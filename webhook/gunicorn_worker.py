"""gunicorn's gevent worker, which at its end does not wait for kept-alive connections that nobody uses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.monkey import MonkeyPatchWarning
from gunicorn.workers.ggevent import GeventWorker

_LINGER = 2
"""Seconds after SIGTERM in which a client may still use a connection that it kept; gunicorn's threads wait as long."""


class Worker(GeventWorker):  # type: ignore[misc]
    """Ends once its deliveries are answered."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Take what gunicorn gives."""
        super().__init__(*arguments, **settings)
        self._idle: dict[gevent.Timeout, gevent.Greenlet] = {}

    def patch(self) -> None:
        """Patch what the process that forks was left with, too: gevent warns of a second time."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MonkeyPatchWarning)
            super().patch()

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Wait for a connection's next request; note who does."""
        with super().timeout_ctx() as timeout:
            self._idle[timeout] = gevent.getcurrent()
            try:
                yield
            finally:
                del self._idle[timeout]

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM, answer what is under way and end."""
        super().handle_exit(sig, frame)
        gevent.spawn_later(_LINGER, self._close_idle)

    def _close_idle(self) -> None:
        for timeout, greenlet in list(self._idle.items()):
            greenlet.kill(timeout, block=False)
