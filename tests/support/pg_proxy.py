"""A TCP proxy before Postgres that counts messages and can cut or mute a connection.

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
class Wire:
    """A TCP proxy before Postgres, which understands where its messages begin and end.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    url: str
    """The database's, through this wire."""
    asked: list[bytes] = field(default_factory=list)
    """The types of the messages that the worker sent."""
    answered: list[bytes] = field(default_factory=list)
    """The types of the messages that Postgres sent."""
    answers_to_lose: int = 0
    """So many answers are read to their end, with what they tell committed; then the connection is cut instead."""
    queries_to_lose: int = 0
    """So many queries cut the connection instead of reaching Postgres."""
    open: set[int] = field(default_factory=set)
    """The connections that are up, by the port they come from."""
    is_silent: bool = False
    """Nothing that Postgres says comes through, and nothing is cut."""


@contextmanager
def wired(database_url: str) -> Iterator[Wire]:
    """Listen on a free port, and pass on to the database what comes in."""
    place = urlsplit(database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        netloc = place.netloc.rpartition(":")[0] + f":{port}"
        wire = Wire(place._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable").geturl())
        target = (str(place.hostname), int(place.port or 5432))
        threading.Thread(target=_accept, args=(listener, target, wire), daemon=True).start()
        try:
            yield wire
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, target: tuple[str, int], wire: Wire) -> None:
    with suppress(OSError):
        while True:
            client, (_, port) = listener.accept()
            wire.open.add(port)
            threading.Thread(target=_join, args=(client, port, target, wire), daemon=True).start()


def _join(client: socket.socket, port: int, target: tuple[str, int], wire: Wire) -> None:
    with client, socket.create_connection(target) as server:
        queries = threading.Thread(target=_pass_queries, args=(client, server, wire), daemon=True)
        queries.start()
        _pass_answers(server, client, wire)
        queries.join()
    wire.open.remove(port)


def _pass_queries(client: socket.socket, server: socket.socket, wire: Wire) -> None:
    with _read_from(client, server) as stream:
        server.sendall(_message(stream, b""))  # the start-up message alone has no type
        while message := _message(stream, stream.read(1)):
            if message[:1] == b"Q" and wire.queries_to_lose:
                wire.queries_to_lose -= 1
                return
            wire.asked.append(message[:1])
            server.sendall(message)


def _pass_answers(server: socket.socket, client: socket.socket, wire: Wire) -> None:
    is_connected = False
    with _read_from(server, client) as stream:
        while message := _message(stream, stream.read(1)):
            wire.answered.append(message[:1])
            if wire.is_silent:
                continue
            if not (wire.answers_to_lose and is_connected):
                client.sendall(message)
                is_connected = is_connected or message[:1] == b"Z"
            elif message[:1] == b"Z":
                wire.answers_to_lose -= 1
                return


def _message(stream: BinaryIO, kind: bytes) -> bytes:
    size = stream.read(4)
    return kind + size + stream.read(struct.unpack("!I", size)[0] - 4) if size else b""


@contextmanager
def _read_from(source: socket.socket, sink: socket.socket) -> Iterator[BinaryIO]:
    """What comes from ``source``; where that ends, both ends learn of it."""
    with suppress(OSError, struct.error), source.makefile("rb") as stream:
        yield stream
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
