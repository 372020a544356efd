"""Random bytes, headers and JSON: the worker answers within seconds, and never with 500 or 503."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from support.databases import Database, Server
from support.recorded import EVENTS, USER_ID, recorded, sign
from support.worker import SECRET, Worker, working

EXAMPLES = int(os.environ.get("FUZZING_EXAMPLES", "200"))
LONGEST = 5
"""Seconds for an answer on a busy machine."""

fuzzing = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)


@pytest.fixture(scope="module")
def worker(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with server.new_database(template) as database:
        add_user(database)
        with working(database.url, tmp_path_factory.mktemp("worker"), processes=1) as worker:
            yield worker


def add_user(database: Database) -> None:
    """Add the user of the recorded events."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute("insert into auth.users (id, email) values (%s, 'buyer@example.com')", [USER_ID])


def statuses(worker: Worker, sent: bytes) -> list[int]:
    """Send the bytes, shut down writing, and return the final statuses once the worker closes the connection."""
    host, port = worker.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LONGEST) as connection:
        received = b""
        with suppress(ConnectionError):
            connection.sendall(sent)
            with suppress(OSError):  # the worker has closed it
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
    found = [int(line.split()[1]) for line in received.splitlines() if line.startswith(b"HTTP/1.")]
    return [status for status in found if status != 100]


def request(body: bytes, *headers: bytes, line: bytes = b"POST /webhook HTTP/1.1") -> bytes:
    lines = [line, b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def signature(body: bytes) -> bytes:
    return b"Stripe-Signature: " + sign(body, SECRET).encode()


GOOD_BODY = json.dumps(recorded("checkout.session.completed")).encode()

# Gunicorn rejects requests itself: a line or header is too long, or an encoding, expectation or version is unknown.
NOT_HTTP = {414, 417, 431, 501, 505}


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """A valid request with one piece replaced by random bytes."""
    good = request(GOOD_BODY, signature(GOOD_BODY))
    start = draw(st.integers(0, 200) | st.integers(0, len(good)))
    return good[:start] + draw(st.binary(max_size=20)) + good[start + draw(st.integers(0, 20)) :]


@fuzzing
@given(sent=st.binary(max_size=200) | nearly_requests())
def test_random_bytes_are_never_answered_500_or_503(worker: Worker, sent: bytes) -> None:
    """The worker may close the connection without an answer, but never leaves it open."""
    assert set(statuses(worker, sent)) <= {200, 400, 404, 405, 413} | NOT_HTTP


CHUNKED = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
sizes = st.sampled_from([b"-5", b"0", b"3", b"zz", b"ffffffffffffffff", b"3;x=y", b" 3", b"+3", b"0x3", b""])
ends = st.sampled_from([b"\r\n", b"\n", b"\r", b""])


@fuzzing
@given(chunks=st.lists(st.tuples(sizes, ends, st.binary(max_size=5), ends), max_size=4))
def test_random_chunks_are_answered_400(worker: Worker, chunks: list[tuple[bytes, ...]]) -> None:
    """No client can cause a 5xx with a chunked body."""
    body = b"".join(piece for chunk in chunks for piece in chunk)
    assert set(statuses(worker, CHUNKED + body)) <= {400}


NAMES = (
    *("Stripe-Signature", "Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Host"),
    *("Connection", "Upgrade", "X-Forwarded-For", "X-Forwarded-Proto", "Cookie", "Range", "X_Y", "Trailer"),
)
VALUES = (
    *("t=1,v1=0", "t=,v1=,", "t=99999999999999999999,v1=0", "t=1e3,v1=0", "t=\u0663,v1=0", "t=-1,v1=0,v1=0"),
    *("chunked", "gzip", "100-continue", "0", "-1", "99999999999999999999", "close", "keep-alive", "h2c", "a=b; c"),
)
names = st.sampled_from([name.encode() for name in NAMES])
values = st.binary(max_size=40) | st.sampled_from([value.encode() for value in VALUES])
methods = st.sampled_from([b"POST", b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"X", b"post"])


@fuzzing
@given(headers=st.lists(st.tuples(names, values), max_size=4), method=methods, is_signed=st.booleans())
def test_random_headers_are_never_answered_500_or_503(
    worker: Worker, headers: list[tuple[bytes, bytes]], method: bytes, *, is_signed: bool
) -> None:
    """The worker answers 200, 400, 405 or 413, and gunicorn rejects invalid HTTP with its own statuses."""
    lines = [name + b": " + value for name, value in headers] + [signature(GOOD_BODY)] * is_signed
    answered = statuses(worker, request(GOOD_BODY, *lines, line=method + b" /webhook HTTP/1.1"))
    assert set(answered) <= {200, 400, 405, 413} | NOT_HTTP


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**53, 2**63, 10**400, 0.5, 1e308, -0.0])
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
    | st.sampled_from(["", "\u0000", "\ud800", "pi_1", "1e3", "0x10", "\u0663", USER_ID, "usd", "x" * 300, "'; --"])
)
shapes = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
recordings = st.sampled_from(sorted(EVENTS.rglob("*.json")))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container below ``value`` with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


READ_MOST = ("id", "amount", "amount_total", "currency", "status", "payment_intent", "metadata", "amount_received")


@st.composite
def corrupted_events(draw: st.DrawFn) -> dict[str, Any]:
    """A recorded event with some fields replaced or removed."""
    event = json.loads(draw(recordings).read_text(encoding="utf-8"))
    read_most = st.sampled_from([(event["data"]["object"], key) for key in READ_MOST])
    for _ in range(draw(st.integers(1, 4))):
        container, key = draw(st.sampled_from(list(places(event))) | read_most)
        if isinstance(container, dict) and key in container and draw(st.booleans()):
            del container[key]
        else:
            container[key] = draw(shapes)
    return event


def status_of(worker: Worker, body: bytes) -> int:
    [status] = statuses(worker, request(body, signature(body), b"Connection: close"))
    return status


@fuzzing
@given(event=corrupted_events())
@example(event={"id": "evt_1", "type": "\u0000", "data": {"object": {"id": "\ud800"}}})
def test_signed_event_with_corrupt_fields_is_answered_200_or_400(worker: Worker, event: dict[str, Any]) -> None:
    """The worker records, ignores, parks or rejects it."""
    assert status_of(worker, json.dumps(event).encode()) in {200, 400}


@fuzzing
@given(body=shapes.map(lambda shape: json.dumps(shape).encode()) | st.binary(max_size=100))
@example(body=b"[" * 100_000)
@example(body=b'{"id":' * 20_000)
@example(body=b"1" * 10_000)
@example(body=b"NaN")
@example(body=b"\xff\xfe{}")
def test_signed_body_of_any_shape_is_answered_400(worker: Worker, body: bytes) -> None:
    """A valid signature does not make it an event."""
    assert status_of(worker, body) == 400


def test_worker_after_fuzzing_is_the_same_process_and_ready(worker: Worker) -> None:
    """The tests above did not kill the process."""
    assert len(worker.pids) == 1
    assert worker.answers("/readyz")
