"""Requests as bytes on the wire, to a real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests
from pytest_socket import SocketConnectBlockedError

from support.databases import Database
from support.ledger_queries import amounts, new_user
from support.recorded import sign
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import SECRET, Answer, Worker, read_answer, sale, working

LARGEST_BODY = 1024 * 1024


@pytest.fixture(scope="module")
def worker(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(shared_database.url, Path(tmp_path_factory.mktemp("worker")), processes=1) as worker:
        yield worker


@pytest.fixture
def owner(shared_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_database.admin_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def user(owner: psycopg.Connection) -> str:
    return new_user(owner)


def send(worker: Worker, body: bytes | Iterator[bytes], *signatures: str) -> Answer:
    """Send one POST with these signature headers; an iterator is sent in chunks, without a Content-Length."""
    with closing(HTTPConnection(urlsplit(worker.url).netloc, timeout=WAIT_TIMEOUT)) as connection:
        connection.putrequest("POST", "/webhook")
        for signature in signatures:
            connection.putheader("Stripe-Signature", signature)
        if isinstance(body, bytes):
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
        else:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(body, encode_chunked=True)
        return read_answer(connection)


def test_signature_header_sent_once_is_accepted(worker: Worker, user: str) -> None:
    body = json.dumps(sale(user, "once")).encode()
    assert send(worker, body, sign(body, SECRET)).outcome == "recorded"


def test_signature_header_sent_twice_is_rejected(worker: Worker, owner: psycopg.Connection, user: str) -> None:
    body = json.dumps(sale(user, "twice")).encode()
    assert send(worker, body, sign(body, SECRET), sign(body, SECRET)).status == 400
    assert amounts(owner, user) == []


def test_second_malformed_signature_header_is_rejected(worker: Worker, user: str) -> None:
    body = json.dumps(sale(user, "garbage")).encode()
    assert send(worker, body, sign(body, SECRET), "garbage").status == 400


def test_chunked_body_is_recorded(worker: Worker, user: str) -> None:
    body = json.dumps(sale(user, "chunks")).encode()
    chunks = (body[first : first + 100] for first in range(0, len(body), 100))
    assert send(worker, chunks, sign(body, SECRET)).outcome == "recorded"


def test_chunked_body_over_one_mebibyte_is_too_large(worker: Worker, owner: psycopg.Connection, user: str) -> None:
    body = json.dumps(sale(user, "large")).encode()
    body += b" " * (LARGEST_BODY + 1 - len(body))
    assert send(worker, iter([body]), sign(body, SECRET)).status == 413
    assert amounts(owner, user) == []


def test_truncated_body_is_not_recorded(worker: Worker, owner: psycopg.Connection, user: str) -> None:
    body = json.dumps(sale(user, "cut")).encode()
    address = urlsplit(worker.url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_TIMEOUT) as connection:
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nStripe-Signature: {{}}\r\n\r\n"
        connection.sendall(head.format(sign(body, SECRET)).encode() + body[:-1])
        connection.shutdown(socket.SHUT_WR)
        response = connection.recv(1000)
    assert not response or response.split()[1] == b"400"
    assert amounts(owner, user) == []


def test_body_over_one_mebibyte_is_rejected_before_it_is_read(worker: Worker) -> None:
    address = urlsplit(worker.url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_TIMEOUT) as connection:
        connection.sendall(f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {1024 * 1024 + 1}\r\n\r\n".encode())
        assert connection.recv(1000).split()[1] == b"413"


def test_malformed_request_is_not_quoted_in_the_log(worker: Worker) -> None:
    """It may contain a payload, so gunicorn logs only that it was invalid."""
    address = urlsplit(worker.url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_TIMEOUT) as connection:
        connection.sendall(b"POST /webhook HTTP/1.1\r\n{'email': 'buyer@example.com'}\r\n\r\n")
        assert connection.recv(1000).split()[1] == b"400"
    eventually(lambda: "Invalid request" in worker.log)
    assert "buyer" not in worker.log
    assert "127.0.0.1" not in worker.log


def test_internet_request_from_a_test_is_blocked() -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get("https://api.stripe.com/v1/prices", timeout=WAIT_TIMEOUT)
    with socket.socket() as outside, pytest.raises((SocketConnectBlockedError, UserWarning)):
        outside.connect(("192.0.2.1", 443))
