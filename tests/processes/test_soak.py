"""Thousands of deliveries, some of them malformed: no process of the worker leaks memory or files.

`make soak` delivers ten times as many.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from urllib.parse import urlsplit

import psycopg
import pytest

from support.databases import Server
from support.ledger_queries import new_user
from support.recorded import recorded, sign
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import SECRET, Worker, sale, working

DELIVERIES = int(os.environ.get("SOAK_DELIVERIES", "20000"))
LANES = 8
MOST_GROWTH = 4 * 1024 * 1024
"""Bytes by which a process may grow from the middle fifth of a soak to the last: allocators are not exact.

With 20,000 deliveries, that is a kilobyte per delivery of the process in between; with 200,000, a tenth of that.
"""

ACCEPTED = ("new",) * 6 + ("duplicate",) * 5 + ("ignored",) * 3 + ("parked",)
KINDS = (*ACCEPTED, "bad signature", "bad signature", "no JSON", "no UTF-8", "no POST")
"""The kinds of every twenty deliveries; each 200th delivery is too large instead."""

IGNORED = json.dumps(recorded("product.created")).encode()
TOO_LARGE = b" " * (1024 * 1024 + 1)


def request(body: bytes, secret: str, method: str) -> bytes:
    head = f"{method} /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    return f"{head}\r\nStripe-Signature: {sign(body, secret)}\r\n\r\n".encode() + body


@dataclass
class Soak:
    """The deliveries, their answers, and the resources that the processes used."""

    worker: Worker
    template: bytes
    """The event of a sale with the payment pi_NUMBER."""
    unknown_user: bytes
    """The same for an unknown user."""
    numbers: Iterator[int] = field(default_factory=count)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    samples: list[tuple[int, dict[int, tuple[int, int]]]] = field(default_factory=list)
    """Deliveries so far, and the resident bytes and open files of each process."""

    def request(self, kind: str, number: int) -> bytes:
        body = self.template.replace(b"NUMBER", b"%d" % number)
        bodies = {
            "duplicate": self.template,
            "ignored": IGNORED,
            "parked": self.unknown_user.replace(b"NUMBER", b"%d" % (number // 1000)),
            "no JSON": body[:-1],
            "no UTF-8": body + b"\xff",
            "too large": TOO_LARGE,
        }
        secret = "whsec_another" if kind == "bad signature" else SECRET
        return request(bodies.get(kind, body), secret, "PUT" if kind == "no POST" else "POST")

    def lane(self) -> None:
        """Deliver over one connection, and open a new one when the worker closes it."""
        with ExitStack() as opened:
            connection = None
            while (number := next(self.numbers)) < DELIVERIES:
                kind = "too large" if number % 200 == 0 else KINDS[number % len(KINDS)]
                if connection is None:
                    connection = opened.enter_context(closing(self.connect()))
                status, is_kept = exchange(connection, self.request(kind, number))
                self.answers[kind, status] += 1
                if not is_kept:
                    opened.close()
                    connection = None

    def connect(self) -> socket.socket:
        place = urlsplit(self.worker.url)
        return socket.create_connection((str(place.hostname), place.port or 0), timeout=WAIT_TIMEOUT)

    def sample(self) -> None:
        master = self.worker.master
        used = {each.pid: (each.memory_info().rss, each.num_fds()) for each in (master, *master.children())}
        self.samples.append((self.answers.total(), used))

    def used(self, resource: int, first: float, last: float) -> dict[int, float]:
        """Each process's median of bytes (0) or open files (1) between two parts of the soak, such as 0.4 and 0.6."""
        chosen = [used for done, used in self.samples if first <= done / DELIVERIES <= last]
        return {pid: median(used[pid][resource] for used in chosen) for pid in chosen[0]}


def exchange(connection: socket.socket, sent: bytes) -> tuple[int, bool]:
    """Send a request. Return the status, and whether the connection can be used for another one."""
    with suppress(ConnectionError):  # the worker answers a body that is too large before all of it is sent
        connection.sendall(sent)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or b"HTTP/1.1 000 cut off\r\nconnection: close\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    headers = head.lower()
    length = int(headers.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), b"connection: close" not in headers and len(sent) < len(TOO_LARGE)


@pytest.fixture(scope="module")
def soak(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    with (
        server.new_database(template) as database,
        working(database.url, tmp_path_factory.mktemp("soak")) as worker,
        psycopg.connect(database.superuser_url, autocommit=True) as superuser,
    ):
        known, unknown = (
            json.dumps(sale(user_id, "NUMBER")).encode()
            for user_id in (new_user(superuser), "00000000-0000-4000-8000-000000000000")
        )
        soak = Soak(worker, known, unknown.replace(b"evt_", b"evt_strange_"))
        eventually(lambda: len(worker.master.children()) == 2)
        with ThreadPoolExecutor(LANES) as lanes:
            running = [lanes.submit(soak.lane) for _ in range(LANES)]
            while not all(lane.done() for lane in running):
                soak.sample()
                time.sleep(0.2)
        for lane in running:
            lane.result()
        soak.sample()
        yield soak


def test_every_delivery_of_a_soak_gets_its_expected_status(soak: Soak) -> None:
    """Malformed deliveries are included."""
    assert soak.answers.total() == DELIVERIES
    refused = {("bad signature", 400), ("no JSON", 400), ("no UTF-8", 400), ("no POST", 405), ("too large", 413)}
    assert set(soak.answers) == {(kind, 200) for kind in ACCEPTED} | refused


def test_no_process_is_replaced_in_a_soak(soak: Soak) -> None:
    """A replacement would hide a leak."""
    assert len({frozenset(used) for _, used in soak.samples}) == 1


def test_memory_of_each_process_does_not_grow_in_a_soak(soak: Soak) -> None:
    """The worker keeps nothing of a finished delivery."""
    middle, end = soak.used(0, 0.4, 0.6), soak.used(0, 0.8, 1)
    assert {pid: end[pid] - middle[pid] for pid in middle if end[pid] > middle[pid] + MOST_GROWTH} == {}


def test_open_files_do_not_grow_in_a_soak(soak: Soak) -> None:
    """No connection to a client or to the database stays open."""
    middle, end = soak.used(1, 0.4, 0.6), soak.used(1, 0.8, 1)
    assert sum(end.values()) <= sum(middle.values()) + LANES
