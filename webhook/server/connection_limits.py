"""The clients of a process: one that takes too long, or too much, counts as one that hung up."""

from __future__ import annotations

import errno
import fcntl
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any

PATIENCE = 10.0
"""Seconds for a whole request from its first byte on, and for taking an answer."""

MOST_HELD = 16 << 20
"""Bytes of requests that a process holds; a delivery has some thousand, and at most a million."""


class _HungUpOn(Exception):
    """The client was too late, or let go."""


class Crowd:
    """The clients of a process. When they are too many, the one that has been waited for longest is let go."""

    def __init__(self, most: int, idle_seconds: float) -> None:
        """Let ``most`` be there; between two requests each may be silent for ``idle_seconds``."""
        self._most = most
        self._idle_seconds = idle_seconds
        self._ends_at = float("inf")
        self._count = 0
        self._held = 0
        self.waited_for: set[Client] = set()
        """Those whose turn it is: to send a request, or to take an answer."""

    @contextmanager
    def client(self, connection: Any) -> Iterator[Client]:
        """Yield the connection's client, which is one of the crowd for so long."""
        client = Client(connection, self)
        self._count += 1
        if self._count > self._most and self.waited_for:
            min(self.waited_for, key=lambda each: each.since).let_go()
        try:
            yield client
        finally:
            self._count -= 1
            client.forget_request()

    def patience_with(self, client: Client) -> float:
        """Return until when to wait for more of a request, or for the next one."""
        if client.held:
            return client.since + PATIENCE
        return min(client.since + self._idle_seconds, self._ends_at)

    def hold(self, size: int) -> bool:
        """Note so many bytes more (or less) of requests; too many, and whoever sent most is let go: return if so."""
        self._held += size
        senders = [each for each in self.waited_for if each.held] if self._held > MOST_HELD else []
        if senders:
            max(senders, key=lambda each: each.held).let_go()
        return bool(senders)

    def end(self, seconds: float) -> None:
        """Wait for no new request any more once that time has passed."""
        self._ends_at = monotonic() + seconds

    def end_idle(self) -> None:
        """Stop waiting for those that have not begun a request."""
        for client in [each for each in self.waited_for if not each.held]:
            if not client.has_sent():
                client.let_go()


class Client:
    """A connection, as gunicorn uses it."""

    def __init__(self, connection: Any, crowd: Crowd) -> None:
        """Begin with its turn: it may send a request."""
        self._connection = connection
        self._crowd = crowd
        self._has_answer = False
        self._is_gone = self._is_let_go = False
        self.since = monotonic()
        """When its turn began."""
        self.held = 0
        """Bytes of its request so far."""

    def __getattr__(self, name: str) -> Any:
        """Be the connection in everything else."""
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        """Return what it has sent: nothing once it hung up, or was too late."""
        if self._has_answer:
            self._has_answer = False
            self.since = monotonic()
            self.forget_request()
        received = b"" if self._is_gone else self._receive(size)
        if not received:
            self._is_gone = True  # whatever may come yet
        elif not self.held:
            self.since = monotonic()
        self.held += len(received)
        if self._crowd.hold(len(received)):
            sleep(0)  # whoever was let go takes a turn to go, before more is read
        return received

    def _receive(self, size: int) -> bytes:
        try:
            with self._waiting(self._crowd.patience_with(self) - monotonic()):
                received: bytes = self._connection.recv(size)
        except _HungUpOn:
            return b""
        return received

    def sendall(self, answer: bytes) -> None:
        """Send it; raises :class:`BrokenPipeError` where the client does not take it."""
        self._has_answer = True
        self.since = monotonic()
        try:
            with self._waiting(PATIENCE):
                self._connection.sendall(answer)
        except _HungUpOn:
            self._is_gone = True
            raise BrokenPipeError(errno.EPIPE, "the answer is not taken") from None

    @contextmanager
    def _waiting(self, seconds: float) -> Iterator[None]:
        self._connection.settimeout(max(seconds, 0.001))
        self._crowd.waited_for.add(self)
        try:
            yield
        except OSError as error:
            if isinstance(error, TimeoutError) or self._is_let_go:
                raise _HungUpOn from error
            raise
        finally:
            self._crowd.waited_for.discard(self)

    def has_sent(self) -> bool:
        """Whether something has come that is not read yet; told at once: in a poll, others would get a turn."""
        return any(fcntl.ioctl(self._connection.fileno(), termios.FIONREAD, bytes(4)))

    def forget_request(self) -> None:
        """Have done with its request."""
        self._crowd.hold(-self.held)
        self.held = 0

    def let_go(self) -> None:
        """Hang up on it, while it is waited for."""
        self._is_let_go = True
        self._crowd.waited_for.discard(self)
        with suppress(OSError):  # it hung up itself
            self._connection.shutdown(socket.SHUT_RDWR)
        self.forget_request()  # at once: nobody else is to be let go for it
