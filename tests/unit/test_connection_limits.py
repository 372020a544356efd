"""Limits on the clients of a process, over a real connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from support.waiting import eventually
from webhook.server import connection_limits
from webhook.server.connection_limits import ConnectionLimiter, LimitedSocket

TOO_MUCH = b"x" * (64 << 20)
"""More bytes than a socket buffers while the other end does not read."""
IDLE_SECONDS = 0.2


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def limited(ours: socket.socket, limit: int = 10) -> tuple[ConnectionLimiter, LimitedSocket]:
    limiter = ConnectionLimiter(limit, IDLE_SECONDS)
    return limiter, LimitedSocket(ours, limiter)


def test_client_idle_between_requests_is_disconnected(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = limited(ends[0])
    assert client.recv(100) == b""


def test_client_that_begins_a_request_gets_the_request_timeout(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout runs from the first byte and covers the whole request."""
    monkeypatch.setattr(connection_limits, "TIMEOUT", 2 * IDLE_SECONDS)
    _, client = limited(ends[0])
    ends[1].sendall(b"POST")
    assert client.recv(4) == b"POST"
    start = client.since
    ends[1].sendall(b" /webhook")
    assert (client.recv(100), client.since) == (b" /webhook", start)
    assert client.recv(100) == b""


def test_client_after_a_timeout_is_not_read_again(ends: tuple[socket.socket, socket.socket]) -> None:
    """The rest of its body must not be parsed as a request."""
    _, client = limited(ends[0])
    assert client.recv(100) == b""
    with suppress(BrokenPipeError):
        ends[1].sendall(b"GET /")
    assert client.recv(100) == b""


def test_client_that_does_not_read_its_response_is_disconnected(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn does not log a BrokenPipeError."""
    monkeypatch.setattr(connection_limits, "TIMEOUT", 0.2)
    _, client = limited(ends[0])
    with pytest.raises(BrokenPipeError):
        client.sendall(TOO_MUCH)


def test_client_waiting_longest_is_disconnected_at_the_limit(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """A client that does not read its response counts as waiting."""
    limiter, client = limited(ends[0], limit=0)
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(client.sendall, TOO_MUCH)
        eventually(lambda: client in limiter.waiting)
        with limiter.limit(None):
            assert isinstance(sent.exception(5), OSError)


def test_client_after_a_response_can_send_another_request(ends: tuple[socket.socket, socket.socket]) -> None:
    """The bytes of the first request are no longer counted."""
    limiter, client = limited(ends[0])
    for request in (b"GET /healthz", b"GET /readyz"):
        ends[1].sendall(request)
        assert (client.recv(100), client.buffered) == (request, len(request))
        client.sendall(b"200 OK")
    assert limiter.waiting == set()


def test_largest_sender_is_disconnected_at_the_buffer_limit(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit applies to the buffered bytes of all clients together."""
    monkeypatch.setattr(connection_limits, "MOST_BUFFERED", 100)
    limiter, client = limited(ends[0])
    ends[1].sendall(b"x" * 90)
    client.recv(100)
    with ThreadPoolExecutor(1) as receiver:
        received = receiver.submit(client.recv, 100)
        eventually(lambda: client in limiter.waiting)
        limiter.add_buffered(20)
        assert received.result(5) == b""


def test_smaller_senders_stay_connected_at_the_buffer_limit(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One disconnection is enough, even before it frees memory; idle clients are never chosen."""
    monkeypatch.setattr(connection_limits, "MOST_BUFFERED", 100)
    limiter, least = limited(ends[0])
    most, idle = LimitedSocket(ends[1], limiter), LimitedSocket(ends[1], limiter)
    for client, size in ((least, 30), (most, 60)):
        client.buffered = size
        limiter.add_buffered(size)
    limiter.waiting = {least, most, idle}
    limiter.add_buffered(20)
    assert limiter.waiting == {least, idle}
    limiter.add_buffered(1)
    assert limiter.waiting == {least, idle}


def test_client_with_unread_data_is_reported(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = limited(ends[0])
    assert not client.has_unread()
    ends[1].sendall(b"P")
    assert client.has_unread()


def test_client_waiting_for_a_request_is_disconnected_at_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """The end can be set during the wait: on SIGTERM, idle clients must not hold up the exit."""
    limiter = ConnectionLimiter(10, idle_timeout=10)
    client = LimitedSocket(ends[0], limiter)
    with ThreadPoolExecutor(1) as receiver:
        received = receiver.submit(client.recv, 100)
        eventually(lambda: client in limiter.waiting)
        limiter.end_after(0)
        assert received.result(5) == b""


def test_idle_client_whose_request_has_arrived_stays_connected(ends: tuple[socket.socket, socket.socket]) -> None:
    """Its greenlet has not run yet."""
    limiter, client = limited(ends[0])
    ends[1].sendall(b"POST")
    limiter.end_after(0)
    limiter.waiting.add(client)
    assert limiter._close_late()  # noqa: SLF001 - the clock calls it
    assert client.recv(100) == b"POST"


def test_request_that_trickles_in_is_disconnected_in_time(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that have arrived do not prolong the timeout of the whole request."""
    monkeypatch.setattr(connection_limits, "TIMEOUT", 0)
    limiter, client = limited(ends[0])
    ends[1].sendall(b"POST /")
    client.recv(4)
    limiter.waiting.add(client)
    limiter._close_late()  # noqa: SLF001 - the clock calls it
    assert client.recv(100) == b""
