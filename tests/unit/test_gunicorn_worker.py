"""The worker answers as gunicorn's own worker of the installed version does, in fewer steps."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from gunicorn.config import Config
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from webhook.server.worker import Worker

HOST = b"Host: localhost\r\n"
REQUESTS = {
    "post": b"POST /webhook HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "get": b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "head": b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
    "close": b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n",
    "http_1_0": b"GET / HTTP/1.0\r\n\r\n",
    "two": 2 * (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "no_content": b"GET /empty HTTP/1.1\r\n" + HOST + b"\r\n",
    "chunked": b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n",
    "error": b"GET /error HTTP/1.1\r\n" + HOST + b"\r\n",
    "error_in_body": b"GET /error-in-body HTTP/1.1\r\n" + HOST + b"\r\n",
    "continue": b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + HOST + b"\r\n{}",
    "malformed": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "incomplete": b"GET / HTTP/1.1\r\nHost: local",
}


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/empty":
            start("204 No Content", [])
            return []
        case "/stream":
            start("200 OK", [("Content-Type", "text/plain")])
            return iter([b"one", b"", b"two"])
        case "/error":
            raise ValueError
        case "/error-in-body":
            start("200 OK", [("Content-Length", "6")])
            return (each or 1 / 0 for each in (b"one", b""))  # type: ignore[misc]
        case _:
            environ["wsgi.input"].read()
            start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
            return [b"one"]


def worker(kind: type[AsyncWorker]) -> AsyncWorker:
    config = Config()
    config.set("keepalive", 5)
    made = kind(1, 1, [], None, 30, config, Mock())
    made.tmp.close()
    made.wsgi = application
    return made


def answer(kind: type[AsyncWorker], request: bytes) -> bytes:
    """Return what the worker sends, without the date."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(request)
        theirs.shutdown(socket.SHUT_WR)
        worker(kind).handle(SimpleNamespace(getsockname=lambda: ("127.0.0.1", 80)), ours, ("127.0.0.1", 1))
        received = b"".join(iter(lambda: theirs.recv(1 << 16), b""))
    return re.sub(rb"Date: [^\r]+", b"Date", received)


@pytest.mark.parametrize("name", REQUESTS)
def test_answer_is_that_of_gunicorns_own_worker(name: str) -> None:
    assert answer(Worker, REQUESTS[name]) == answer(GeventWorker, REQUESTS[name])


def test_answer_of_gunicorns_own_worker_is_not_empty() -> None:
    """Otherwise the comparison would prove nothing."""
    assert answer(GeventWorker, REQUESTS["post"]).endswith(b"\r\n\r\none")
    assert answer(GeventWorker, REQUESTS["two"]).count(b"HTTP/1.1 200 OK") == 2


def test_answer_is_sent_in_one_piece() -> None:
    """A second packet takes the processor time of a second call, and may wait for an acknowledgement."""
    pieces: list[bytes] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(REQUESTS["close"])
        connection = SimpleNamespace(
            **{name: getattr(ours, name) for name in ("recv", "fileno", "shutdown", "close", "setblocking")},
            **{name: getattr(ours, name) for name in ("gettimeout", "settimeout")},
            send=lambda piece: pieces.append(piece) or len(piece),
        )
        worker(Worker).handle(SimpleNamespace(getsockname=lambda: ("127.0.0.1", 80)), connection, ("127.0.0.1", 1))
    [piece] = pieces
    assert piece.startswith(b"HTTP/1.1 200 OK")
    assert piece.endswith(b"one")
