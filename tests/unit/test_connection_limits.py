"""One client of a process, over a real connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.worker import eventually
from webhook.server import connection_limits as clients
from webhook.server.connection_limits import Client, Crowd

TOO_MUCH = b"x" * (64 << 20)
"""Bytes that no socket takes unless somebody reads."""
IDLE_SECONDS = 0.2


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def in_crowd(ours: socket.socket, most: int = 10) -> tuple[Crowd, Client]:
    crowd = Crowd(most, IDLE_SECONDS)
    return crowd, Client(ours, crowd)


def test_client_that_is_silent_between_requests_is_hung_up_on(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = in_crowd(ends[0])
    assert client.recv(100) == b""


def test_client_that_begins_a_request_gets_more_time(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first byte on, and for the whole request, however it is parted."""
    monkeypatch.setattr(clients, "PATIENCE", 2 * IDLE_SECONDS)
    _, client = in_crowd(ends[0])
    ends[1].sendall(b"POST")
    assert client.recv(4) == b"POST"
    begun = client.since
    ends[1].sendall(b" /webhook")
    assert (client.recv(100), client.since) == (b" /webhook", begun)
    assert client.recv(100) == b""


def test_client_that_was_too_late_is_not_listened_to_any_more(ends: tuple[socket.socket, socket.socket]) -> None:
    """The rest of its body must not be taken for a request."""
    _, client = in_crowd(ends[0])
    assert client.recv(100) == b""
    ends[1].sendall(b"GET /")
    assert client.recv(100) == b""


def test_client_that_does_not_take_its_answer_is_hung_up_on(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that gunicorn keeps quiet about."""
    monkeypatch.setattr(clients, "PATIENCE", 0.2)
    _, client = in_crowd(ends[0])
    with pytest.raises(BrokenPipeError):
        client.sendall(TOO_MUCH)


def test_client_waited_for_longest_makes_room_where_there_are_too_many(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Be it that it does not take its answer."""
    crowd, client = in_crowd(ends[0], most=0)
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(client.sendall, TOO_MUCH)
        eventually(lambda: client in crowd.waited_for)
        with crowd.client(None):
            assert isinstance(sent.exception(5), OSError)


def test_client_after_its_answer_may_send_another_request(ends: tuple[socket.socket, socket.socket]) -> None:
    """What its first request took is given back."""
    crowd, client = in_crowd(ends[0])
    for request in (b"GET /healthz", b"GET /readyz"):
        ends[1].sendall(request)
        assert (client.recv(100), client.held) == (request, len(request))
        client.sendall(b"200 OK")
    assert crowd.waited_for == set()


def test_client_that_sends_most_is_let_go_where_all_send_too_much(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who sends least is listened to."""
    monkeypatch.setattr(clients, "MOST_HELD", 100)
    crowd, client = in_crowd(ends[0])
    ends[1].sendall(b"x" * 90)
    client.recv(100)
    with ThreadPoolExecutor(1) as receiver:
        received = receiver.submit(client.recv, 100)
        eventually(lambda: client in crowd.waited_for)
        crowd.hold(20)
        assert received.result(5) == b""


def test_client_that_sends_little_stays_while_the_one_that_sends_most_is_let_go(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is enough, though it takes a moment until it is gone; and who sends nothing makes no room."""
    monkeypatch.setattr(clients, "MOST_HELD", 100)
    crowd, least = in_crowd(ends[0])
    most, idle = Client(ends[1], crowd), Client(ends[1], crowd)
    for client, size in ((least, 30), (most, 60)):
        client.held = size
        crowd.hold(size)
    crowd.waited_for = {least, most, idle}
    crowd.hold(20)
    assert crowd.waited_for == {least, idle}
    crowd.hold(1)
    assert crowd.waited_for == {least, idle}


def test_client_that_has_sent_something_is_not_idle(ends: tuple[socket.socket, socket.socket]) -> None:
    _, client = in_crowd(ends[0])
    assert not client.has_sent()
    ends[1].sendall(b"P")
    assert client.has_sent()
