"""Limits on the connections of a process: a client that is too slow, or sends too much, is disconnected."""

from __future__ import annotations

import errno
import fcntl
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any

from webhook.clock import Clock

TIMEOUT = 10.0
"""Seconds for a whole request from its first byte on, and for the client to read an answer; up to 0.1 s more."""

MOST_BUFFERED = 16 << 20
"""Bytes of requests that a process holds. A delivery has some thousands, at most a million."""


class ConnectionLimiter:
    """All connections of a process. If there are too many, the one that has waited longest is closed."""

    def __init__(self, limit: int, idle_timeout: float) -> None:
        """Allow ``limit`` connections. Between two requests, each may be idle for ``idle_timeout`` seconds."""
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._end = float("inf")
        self._count = 0
        self._buffered = 0
        self._clock = Clock(self._close_late)
        self.waiting: set[LimitedSocket] = set()
        """Connections that wait for the client: to send a request, or to read an answer."""

    def begin_wait(self, client: LimitedSocket) -> None:
        """Close the connection if the wait takes too long. It ends when ``client`` is removed from :attr:`waiting`."""
        self.waiting.add(client)
        self._clock.start()

    @contextmanager
    def limit(self, connection: Any) -> Iterator[LimitedSocket]:
        """Yield the connection with its limits, and count it until the block ends. May close another connection."""
        limited = LimitedSocket(connection, self)
        self._count += 1
        if self._count > self._limit and self.waiting:
            min(self.waiting, key=lambda each: each.since).close()
        try:
            yield limited
        finally:
            self._count -= 1
            limited.discard_request()

    def _close_late(self) -> bool:
        """Close the connections whose time is over. Return whether any connection waits."""
        now = monotonic()
        for client in list(self.waiting):
            if client.is_idle:
                # Its next request may have arrived just now.
                is_late = min(client.since + self._idle_timeout, self._end) <= now and not client.has_unread()
            else:
                is_late = client.since + TIMEOUT <= now
            if is_late:
                client.close()
        return bool(self.waiting)

    def add_buffered(self, size: int) -> bool:
        """Add ``size``, which may be negative, to the bytes that requests hold. Over the limit, close the largest one.

        Returns whether one was closed.
        """
        self._buffered += size
        senders = [each for each in self.waiting if each.buffered] if self._buffered > MOST_BUFFERED else []
        if senders:
            max(senders, key=lambda each: each.buffered).close()
        return bool(senders)

    def end_after(self, seconds: float) -> None:
        """Stop waiting for new requests when that time has passed."""
        self._end = monotonic() + seconds


class LimitedSocket:
    """A client's socket with timeouts, as gunicorn uses it."""

    def __init__(self, connection: Any, limiter: ConnectionLimiter) -> None:
        self._connection = connection
        self._limiter = limiter
        self._is_answered = False
        self._is_closed = False
        self._held: list[bytes] | None = None
        self.since = monotonic()
        """The start of the wait for the client; once it sends a request, that of the request."""
        self.buffered = 0
        """Bytes of the current request so far."""

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the socket."""
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        """Return received bytes, none once the client has disconnected or timed out."""
        if self._is_answered:
            self._is_answered = False
            self.since = monotonic()
            self.discard_request()
        received = b"" if self._is_closed else self._receive(size)
        if not received:
            self._is_closed = True  # later bytes must not count as a new request
        elif not self.buffered:
            self.since = monotonic()
        self.buffered += len(received)
        if self._limiter.add_buffered(len(received)):
            sleep(0)  # the closed connection ends, and frees its memory, before more is read
        return received

    def _receive(self, size: int) -> bytes:
        self._limiter.begin_wait(self)
        try:
            received: bytes = self._connection.recv(size)
        except OSError:
            if self._is_closed:
                return b""
            raise
        finally:
            self._limiter.waiting.discard(self)
        return received

    def hold(self) -> None:
        """Keep what is written from now on, until :meth:`send_held` sends it in one piece."""
        self._held = []

    def send_held(self) -> None:
        """Send what was kept, as :meth:`sendall` does."""
        answer, self._held = b"".join(self._held or ()), None
        if answer and not self._is_closed:
            self.sendall(answer)

    def sendall(self, answer: bytes) -> None:
        """Send the bytes; raise :class:`BrokenPipeError`, which gunicorn does not log, if the client times out."""
        if self._held is not None:
            self._held.append(answer)
            return
        self._is_answered = True
        self.since = monotonic()
        self._limiter.begin_wait(self)
        try:
            # The first send takes all of a usual answer. gevent's sendall would look up the size of its buffer before.
            sent = self._connection.send(answer)
            if sent < len(answer):
                self._connection.sendall(answer[sent:])
        except OSError:
            if self._is_closed:
                raise BrokenPipeError(errno.EPIPE, "the client does not read the answer") from None
            raise
        finally:
            self._limiter.waiting.discard(self)

    def shutdown(self, how: int) -> None:
        """Send what was kept, then shut the connection down: an error cut the answer off."""
        self.send_held()
        self._connection.shutdown(how)

    @property
    def is_idle(self) -> bool:
        """Whether the client has not begun its next request."""
        return not (self.buffered or self._is_answered)

    def has_unread(self) -> bool:
        """Return whether received bytes are unread. This does not switch to another greenlet, as a poll would."""
        return any(fcntl.ioctl(self._connection.fileno(), termios.FIONREAD, bytes(4)))

    def discard_request(self) -> None:
        """Stop counting the bytes of the current request."""
        self._limiter.add_buffered(-self.buffered)
        self.buffered = 0

    def close(self) -> None:
        """Close the connection; gunicorn may call this again. A read or write in progress ends."""
        self._is_closed = True
        self._limiter.waiting.discard(self)
        with suppress(OSError):  # the client disconnected first
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self.discard_request()  # at once, so that no other client is closed for these bytes
