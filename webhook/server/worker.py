"""gunicorn's gevent worker, with limits on its connections."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gevent import socket
from gunicorn.workers.ggevent import GeventWorker

from webhook.server.connection_limits import ConnectionLimiter, LimitedSocket
from webhook.server.gunicorn_caches import add_caches

_LINGER = 2
"""Seconds after SIGTERM in which a client may still use its idle connection. gunicorn's threads wait as long."""


class Worker(GeventWorker):  # type: ignore[misc]
    """A worker that exits as soon as its deliveries are answered."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # gunicorn accepts twice as many for a moment: a new connection is accepted first, then an old one is closed.
        self._limiter = ConnectionLimiter(self.worker_connections // 2, self.cfg.keepalive)

    def init_process(self) -> None:
        """Serve until the process ends."""
        add_caches(self.cfg)
        super().init_process()

    def patch(self) -> None:
        """Make the listening sockets gevent's. gunicorn's method would also patch what gunicorn_conf.py leaves out."""
        patched = (socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in self.sockets)
        self.sockets: list[Any] = list(patched)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        with self._limiter.limit(client) as limited:
            super().handle(listener, limited, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: LimitedSocket, addr: Any) -> None:
        """Answer one request. gunicorn alone would send the head and the body one after the other."""
        sock.hold()
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.send_held()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Return no timeout: the limited socket has its own, which depends on what it received."""
        return nullcontext()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM, answer the requests in progress, then exit."""
        super().handle_exit(sig, frame)
        self._limiter.end_after(_LINGER)
