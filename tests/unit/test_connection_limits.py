"""One client of a process, over a real connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.waiting import eventually
from webhook.server import connection_limits
from webhook.server.connection_limits import ConnectionLimiter, LimitedSocket

TOO_MUCH = b"x" * (64 << 20)
"""Bytes that no socket takes unless somebody reads."""
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


def test_client_that_is_silent_between_requests_is_hung_up_on(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = limited(ends[0])
    assert client.recv(100) == b""


def test_client_that_begins_a_request_gets_more_time(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first byte on, and for the whole request, however it is parted."""
    monkeypatch.setattr(connection_limits, "TIMEOUT", 2 * IDLE_SECONDS)
    _, client = limited(ends[0])
    ends[1].sendall(b"POST")
    assert client.recv(4) == b"POST"
    begun = client.since
    ends[1].sendall(b" /webhook")
    assert (client.recv(100), client.since) == (b" /webhook", begun)
    assert client.recv(100) == b""


def test_client_that_was_too_late_is_not_listened_to_any_more(ends: tuple[socket.socket, socket.socket]) -> None:
    """The rest of its body must not be taken for a request."""
    _, client = limited(ends[0])
    assert client.recv(100) == b""
    ends[1].sendall(b"GET /")
    assert client.recv(100) == b""


def test_client_that_does_not_take_its_answer_is_hung_up_on(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that gunicorn keeps quiet about."""
    monkeypatch.setattr(connection_limits, "TIMEOUT", 0.2)
    _, client = limited(ends[0])
    with pytest.raises(BrokenPipeError):
        client.sendall(TOO_MUCH)


def test_client_waited_for_longest_makes_room_where_there_are_too_many(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Be it that it does not take its answer."""
    limiter, client = limited(ends[0], limit=0)
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(client.sendall, TOO_MUCH)
        eventually(lambda: client in limiter.waiting)
        with limiter.limit(None):
            assert isinstance(sent.exception(5), OSError)


def test_client_after_its_answer_may_send_another_request(ends: tuple[socket.socket, socket.socket]) -> None:
    """What its first request took is given back."""
    limiter, client = limited(ends[0])
    for request in (b"GET /healthz", b"GET /readyz"):
        ends[1].sendall(request)
        assert (client.recv(100), client.buffered) == (request, len(request))
        client.sendall(b"200 OK")
    assert limiter.waiting == set()


def test_client_that_sends_most_is_let_go_where_all_send_too_much(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who sends least is listened to."""
    monkeypatch.setattr(connection_limits, "MOST_BUFFERED", 100)
    limiter, client = limited(ends[0])
    ends[1].sendall(b"x" * 90)
    client.recv(100)
    with ThreadPoolExecutor(1) as receiver:
        received = receiver.submit(client.recv, 100)
        eventually(lambda: client in limiter.waiting)
        limiter.add_buffered(20)
        assert received.result(5) == b""


def test_client_that_sends_little_stays_while_the_one_that_sends_most_is_let_go(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is enough, though it takes a moment until it is gone; and who sends nothing makes no room."""
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


def test_client_that_has_unread_something_is_not_idle(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = limited(ends[0])
    assert not client.has_unread()
    ends[1].sendall(b"P")
    assert client.has_unread()
