"""Slow and silent clients, more than a process accepts: the worker still answers deliveries."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from support.databases import Database
from support.ledger_queries import new_user
from support.waiting import eventually
from support.worker import Worker, sale, working
from webhook.app import LARGEST_BODY
from webhook.server.connection_limits import MOST_BUFFERED, TIMEOUT

WORKER_CONNECTIONS = 60
"""Gunicorn's worker_connections in these tests."""
CONNECTIONS = WORKER_CONNECTIONS + 10
PROMPTLY = 3
"""Seconds for an answer on a busy machine."""

HEAD = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True)
class Client:
    """A client that sends ``first`` once, then ``then`` every half second. It never reads."""

    first: bytes
    then: bytes = b""


CLIENTS = {
    "send nothing": Client(b""),
    "send headers slowly": Client(HEAD, b"X-Slow: 1\r\n"),
    "stop in the headers": Client(HEAD),
    "send the body slowly": Client(HEAD + b"Content-Length: 100000\r\n\r\n", b"{"),
    "stop in the body": Client(HEAD + b"Content-Length: 100000\r\n\r\n{"),
    "send chunks slowly": Client(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
}


@pytest.fixture(scope="module")
def worker(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    options = f"--worker-connections={WORKER_CONNECTIONS}"
    folder = tmp_path_factory.mktemp("worker")
    with working(shared_database.url, folder, processes=1, GUNICORN_CMD_ARGS=options) as worker:
        yield worker


@pytest.fixture
def user_id(shared_database: Database) -> str:
    with psycopg.connect(shared_database.superuser_url, autocommit=True) as superuser:
        return new_user(superuser)


@contextmanager
def connected_clients(worker: Worker, client: Client, count: int = CONNECTIONS) -> Iterator[list[socket.socket]]:
    """Connect ``count`` clients, which send until the block ends."""
    place = urlsplit(worker.url)
    is_over = threading.Event()
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in clients:
            each.connect((place.hostname, place.port))
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
        with suppress(OSError):  # its buffer is full, or it is closed
            each.send(piece)


@pytest.mark.parametrize("kind", CLIENTS)
def test_deliveries_among_too_many_slow_clients_are_answered(kind: str, worker: Worker, user_id: str) -> None:
    """Even if more slow clients connect than worker_connections, each answer takes less than PROMPTLY."""
    with connected_clients(worker, CLIENTS[kind]):
        for number in range(10):
            started = time.monotonic()
            answer = worker.deliver(sale(user_id, f"{user_id}_{number}"), seconds=PROMPTLY * 5)
            assert (answer.outcome, time.monotonic() - started < PROMPTLY) == ("recorded", True)


def test_connections_of_slow_clients_are_closed(worker: Worker) -> None:
    """A whole request has to arrive within connection_limits.TIMEOUT."""
    [process] = worker.master.children()
    with ExitStack() as opened:
        clients = [
            client
            for name, kind in CLIENTS.items()
            if name != "send nothing"
            for client in opened.enter_context(connected_clients(worker, kind, 1))
        ]
        eventually(lambda: connections(process, clients) == len(clients))
        eventually(lambda: connections(process, clients) == 0, TIMEOUT + PROMPTLY)


def connections(process: psutil.Process, clients: list[socket.socket]) -> int:
    """The number of clients that are still connected to the process."""
    ports = {client.getsockname()[1] for client in clients}
    return sum(bool(each.raddr) and each.raddr.port in ports for each in process.net_connections())


def test_large_incomplete_bodies_take_little_memory(shared_database: Database, user_id: str, tmp_path: Path) -> None:
    """Above connection_limits.MOST_BUFFERED in total, the worker closes the connection with the largest body."""
    body = b"x" * (LARGEST_BODY - 1)
    client = Client(HEAD + b"Content-Length: %d\r\n\r\n" % LARGEST_BODY)
    with (
        working(shared_database.url, tmp_path, processes=1) as worker,
        connected_clients(worker, client, 300) as clients,
    ):
        [process] = worker.master.children()
        before = process.memory_info().rss
        for each in clients:
            each.setblocking(True)  # noqa: FBT003
            with suppress(OSError):  # the worker closed it
                each.sendall(body)
        assert worker.deliver(sale(user_id, user_id), seconds=PROMPTLY * 5).outcome == "recorded"
        assert process.memory_info().rss - before < 8 * MOST_BUFFERED
