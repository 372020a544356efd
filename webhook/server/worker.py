"""gunicorn's gevent worker, which waits for no client for long, and at its end for none that is idle."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gevent
from gevent import socket
from gunicorn.workers.ggevent import GeventWorker

from webhook.server.connection_limits import Crowd

_LINGER = 2
"""Seconds after SIGTERM in which a client may still use a connection that it kept; gunicorn's threads wait as long."""


class Worker(GeventWorker):  # type: ignore[misc]
    """Ends once its deliveries are answered."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Take what gunicorn gives."""
        super().__init__(*arguments, **settings)
        # More may be there than are wanted, for a moment: whoever comes is taken in, and another let go.
        self._crowd = Crowd(self.worker_connections // 2, self.cfg.keepalive)

    def patch(self) -> None:
        """Make the sockets gevent's. gunicorn would patch, too, what gunicorn_conf.py leaves to the system."""
        patched = (socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in self.sockets)
        self.sockets: list[Any] = list(patched)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a client."""
        with self._crowd.client(client) as one_of_many:
            super().handle(listener, one_of_many, addr)

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Let the client itself see how long it is waited for: it knows what it has sent."""
        return nullcontext()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM, answer what is under way and end."""
        super().handle_exit(sig, frame)
        self._crowd.end(_LINGER)
        gevent.spawn_later(_LINGER, self._crowd.end_idle)
