"""A TCP proxy in front of Postgres that records messages and can cut or silence a connection.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlsplit


@dataclass
class PgProxy:
    """The proxy's state, and the faults that it causes."""

    url: str
    """The database's URL through this proxy."""
    frontend_messages: list[bytes] = field(default_factory=list)
    """The types of the messages that the worker sent."""
    backend_messages: list[bytes] = field(default_factory=list)
    """The types of the messages that Postgres sent."""
    answers_to_lose: int = 0
    """The number of responses to lose: each is read to its end, after the commit; then the connection is cut."""
    queries_to_lose: int = 0
    """The number of queries to lose: each cuts the connection instead of reaching Postgres."""
    open: set[int] = field(default_factory=set)
    """The open connections, by client port."""
    is_silent: bool = False
    """Messages of Postgres are not forwarded, and connections stay open."""


@contextmanager
def proxied(database_url: str) -> Iterator[PgProxy]:
    """Listen on a free port, and forward connections to the database."""
    address = urlsplit(database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        netloc = address.netloc.rpartition(":")[0] + f":{port}"
        proxy = PgProxy(address._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable").geturl())
        target = (str(address.hostname), int(address.port or 5432))
        threading.Thread(target=_accept, args=(listener, target, proxy), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, target: tuple[str, int], proxy: PgProxy) -> None:
    with suppress(OSError):
        while True:
            client, (_, port) = listener.accept()
            proxy.open.add(port)
            threading.Thread(target=_forward, args=(client, port, target, proxy), daemon=True).start()


def _forward(client: socket.socket, port: int, target: tuple[str, int], proxy: PgProxy) -> None:
    with client, socket.create_connection(target) as server:
        queries = threading.Thread(target=_forward_queries, args=(client, server, proxy), daemon=True)
        queries.start()
        _forward_responses(server, client, proxy)
        queries.join()
    proxy.open.remove(port)


def _forward_queries(client: socket.socket, server: socket.socket, proxy: PgProxy) -> None:
    with _read_from(client, server) as stream:
        server.sendall(_message(stream, b""))  # only the start-up message has no type
        while message := _message(stream, stream.read(1)):
            if message[:1] == b"Q" and proxy.queries_to_lose:
                proxy.queries_to_lose -= 1
                return
            proxy.frontend_messages.append(message[:1])
            server.sendall(message)


def _forward_responses(server: socket.socket, client: socket.socket, proxy: PgProxy) -> None:
    is_connected = False
    with _read_from(server, client) as stream:
        while message := _message(stream, stream.read(1)):
            proxy.backend_messages.append(message[:1])
            if proxy.is_silent:
                continue
            if not (proxy.answers_to_lose and is_connected):
                client.sendall(message)
                is_connected = is_connected or message[:1] == b"Z"
            elif message[:1] == b"Z":
                proxy.answers_to_lose -= 1
                return


def _message(stream: BinaryIO, kind: bytes) -> bytes:
    size = stream.read(4)
    return kind + size + stream.read(struct.unpack("!I", size)[0] - 4) if size else b""


@contextmanager
def _read_from(source: socket.socket, sink: socket.socket) -> Iterator[BinaryIO]:
    """Read from ``source``; when it ends, shut down both ends."""
    with suppress(OSError, struct.error), source.makefile("rb") as stream:
        yield stream
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
