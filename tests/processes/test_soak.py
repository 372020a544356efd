"""Thousands of deliveries, a part of them malformed: no process of the worker grows, nor keeps files open.

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
from support.waiting import PATIENCE, eventually
from support.worker import SECRET, Worker, sale, working

DELIVERIES = int(os.environ.get("SOAK_DELIVERIES", "20000"))
LANES = 8
MOST_GROWTH = 4 * 1024 * 1024
"""Bytes by which a process may be larger in the last fifth of a soak than in the middle one: allocators are not exact.

With 20,000 deliveries that is a kilobyte for each of a process's own between the two, with 200,000 a tenth of it.
"""

SOUND = ("new",) * 6 + ("duplicate",) * 5 + ("ignored",) * 3 + ("parked",)
KINDS = (*SOUND, "bad signature", "bad signature", "no JSON", "no UTF-8", "no POST")
"""What every twenty deliveries are; now and then one is too large instead."""

IGNORED = json.dumps(recorded("product.created")).encode()
TOO_LARGE = b" " * (1024 * 1024 + 1)


def request(body: bytes, secret: str, method: str) -> bytes:
    head = f"{method} /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    return f"{head}\r\nStripe-Signature: {sign(body, secret)}\r\n\r\n".encode() + body


@dataclass
class Soak:
    """What is delivered, what came back, and what the processes used meanwhile."""

    worker: Worker
    template: bytes
    """A sale of the payment pi_NUMBER."""
    stranger: bytes
    """The same of somebody who is no user."""
    numbers: Iterator[int] = field(default_factory=count)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    samples: list[tuple[int, dict[int, tuple[int, int]]]] = field(default_factory=list)
    """Deliveries so far, and of each process its resident bytes and its open files."""

    def request(self, kind: str, number: int) -> bytes:
        body = self.template.replace(b"NUMBER", b"%d" % number)
        bodies = {
            "duplicate": self.template,
            "ignored": IGNORED,
            "parked": self.stranger.replace(b"NUMBER", b"%d" % (number // 1000)),
            "no JSON": body[:-1],
            "no UTF-8": body + b"\xff",
            "too large": TOO_LARGE,
        }
        secret = "whsec_another" if kind == "bad signature" else SECRET
        return request(bodies.get(kind, body), secret, "PUT" if kind == "no POST" else "POST")

    def lane(self) -> None:
        """Deliver over a connection that is kept as long as the worker keeps it."""
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
        return socket.create_connection((str(place.hostname), place.port or 0), timeout=PATIENCE)

    def sample(self) -> None:
        master = self.worker.master
        used = {each.pid: (each.memory_info().rss, each.num_fds()) for each in (master, *master.children())}
        self.samples.append((self.answers.total(), used))

    def used(self, what: int, first: float, last: float) -> dict[int, float]:
        """The median of what each process used between two parts of the soak, such as 0.4 and 0.6."""
        chosen = [used for done, used in self.samples if first <= done / DELIVERIES <= last]
        return {pid: median(used[pid][what] for used in chosen) for pid in chosen[0]}


def exchange(connection: socket.socket, sent: bytes) -> tuple[int, bool]:
    """Return the status of the answer, and whether the connection is good for another request."""
    with suppress(ConnectionError):  # the answer to what is too large comes before all of it is sent
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
        sold, strange = (
            json.dumps(sale(user_id, "NUMBER")).encode()
            for user_id in (new_user(superuser), "00000000-0000-4000-8000-000000000000")
        )
        soak = Soak(worker, sold, strange.replace(b"evt_", b"evt_strange_"))
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


def test_every_delivery_of_a_soak_is_answered_as_it_deserves(soak: Soak) -> None:
    """Malformed ones too, and however many came before."""
    assert soak.answers.total() == DELIVERIES
    refused = {("bad signature", 400), ("no JSON", 400), ("no UTF-8", 400), ("no POST", 405), ("too large", 413)}
    assert set(soak.answers) == {(kind, 200) for kind in SOUND} | refused


def test_processes_in_a_soak_do_not_change(soak: Soak) -> None:
    """None was replaced, which would hide its growth."""
    assert len({frozenset(used) for _, used in soak.samples}) == 1


def test_memory_of_every_process_in_a_soak_stays(soak: Soak) -> None:
    """Nothing is kept of a delivery that is over."""
    middle, end = soak.used(0, 0.4, 0.6), soak.used(0, 0.8, 1)
    assert {pid: end[pid] - middle[pid] for pid in middle if end[pid] > middle[pid] + MOST_GROWTH} == {}


def test_open_files_of_the_processes_in_a_soak_stay(soak: Soak) -> None:
    """No connection is left open, to clients nor to the database."""
    middle, end = soak.used(1, 0.4, 0.6), soak.used(1, 0.8, 1)
    assert sum(end.values()) <= sum(middle.values()) + LANES
