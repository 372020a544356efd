"""Clients that say nothing, say it slowly, or never listen, by the hundred: deliveries are answered meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from conftest import Database, Server
from worker import Worker, new_user, sale, working

CONNECTIONS = 300
PROMPTLY = 2
"""Seconds for any one answer, on a machine that has other things to do."""

HEAD = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True)
class Client:
    """What a client sends at first, and again and again then; it never reads."""

    first: bytes
    then: bytes = b""


CLIENTS = {
    "say nothing": Client(b""),
    "send a header a moment": Client(HEAD, b"X-Slow: 1\r\n"),
    "stop within the headers": Client(HEAD),
    "send a byte of the body a moment": Client(HEAD + b"Content-Length: 100000\r\n\r\n", b"{"),
    "stop within the body": Client(HEAD + b"Content-Length: 100000\r\n\r\n{"),
    "send chunks slowly": Client(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
    "never read what they asked for": Client(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5),
}


@pytest.fixture(scope="module")
def database(server: Server, template: str) -> Iterator[Database]:
    with server.new_database(template) as database:
        yield database


@pytest.fixture(scope="module")
def worker(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(database.url, tmp_path_factory.mktemp("worker"), processes=1) as worker:
        yield worker


@pytest.fixture
def user_id(database: Database) -> str:
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        return new_user(superuser)


@contextmanager
def crowd(worker: Worker, client: Client) -> Iterator[list[socket.socket]]:
    """Hundreds of such clients, which go on until the block ends."""
    place = urlsplit(worker.url)
    is_over = threading.Event()
    with ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection((place.hostname, place.port), timeout=20))
            for _ in range(CONNECTIONS)
        ]
        for each in clients:
            each.setblocking(False)  # noqa: FBT003
        send(clients, client.first)
        thread = threading.Thread(target=drip, args=(clients, client.then, is_over))
        thread.start()
        try:
            yield clients
        finally:
            is_over.set()
            thread.join()


def drip(clients: list[socket.socket], piece: bytes, is_over: threading.Event) -> None:
    while not is_over.wait(0.5):
        send(clients, piece)


def send(clients: list[socket.socket], piece: bytes) -> None:
    for each in clients:
        with suppress(OSError):  # it takes no more, or is closed
            each.send(piece)


@pytest.mark.parametrize("kind", CLIENTS)
def test_deliveries_among_hundreds_of_clients_are_answered_promptly(kind: str, worker: Worker, user_id: str) -> None:
    """No crowd of slow clients takes the place of a delivery."""
    with crowd(worker, CLIENTS[kind]):
        for number in range(10):
            started = time.monotonic()
            answer = worker.deliver(sale(user_id, f"{user_id}_{number}"), seconds=PROMPTLY * 5)
            assert (answer.outcome, time.monotonic() - started < PROMPTLY) == ("recorded", True)
