"""A wait for Postgres in a greenlet: other greenlets run meanwhile, and it ends if the server does not answer."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import gevent
import pytest
from psycopg import OperationalError
from psycopg.waiting import Wait

from support.databases import Database
from support.waiting import WAIT_TIMEOUT
from webhook.ledger.connections import _wait_in_greenlet

QUERIES = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from webhook.ledger.connections import Database
database = Database(sys.argv[1])
size = 8 << 20
finished = []
def call(name, statement, **parameters):
    [row] = database.call(statement, parameters)
    [value] = row.values()
    finished.append((name, value if isinstance(value, int) else len(value)))
gevent.joinall([
    gevent.spawn(call, "slow", "select 1 from pg_catalog.pg_sleep(1)"),
    gevent.spawn(call, "large", "select pg_catalog.length(%(text)s)", text="x" * size),
    gevent.spawn(call, "large answer", "select pg_catalog.repeat('x', %(size)s)", size=size),
    gevent.spawn(call, "quick", "select 1"),
], raise_error=True)
assert sorted(finished) == [("large", size), ("large answer", size), ("quick", 1), ("slow", 1)], finished
names = [name for name, _ in finished]
assert names.index("quick") < names.index("slow"), finished
print("answered")
"""


def steps(*events: Wait) -> Generator[Wait, int, list[int]]:
    """Return what was reported for each event, as psycopg's generators receive it."""
    reported = []
    for event in events:
        answer = yield event
        reported.append(answer)
    return reported


@pytest.fixture
def ends() -> Generator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def wait(end: socket.socket, *events: Wait, timeout: float = WAIT_TIMEOUT) -> Any:
    return _wait_in_greenlet(steps(*events), end.fileno(), timeout)


def test_each_event_that_was_waited_for_is_reported(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.send(b"answer")
    assert wait(ours, Wait.W, Wait.R, Wait.RW) == [Wait.W, Wait.R, Wait.RW]


def test_generator_that_needs_no_wait_returns_its_result(ends: tuple[socket.socket, socket.socket]) -> None:
    assert wait(ends[0]) == []


def test_wait_without_an_answer_times_out(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    with pytest.raises(OperationalError, match="did not answer in time"):
        wait(ours, *[Wait.W] * 3, Wait.R, timeout=0.1)


def test_killed_greenlet_leaves_the_socket_to_others(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    killed = gevent.spawn(wait, ours, Wait.R)
    gevent.sleep(0)
    killed.kill()
    theirs.send(b"answer")
    assert wait(ours, Wait.R) == [Wait.R]


def test_large_and_slow_queries_do_not_hold_up_other_greenlets(database: Database) -> None:
    """A query and an answer that are larger than the socket's buffers take several steps."""
    command = [sys.executable, "-c", QUERIES, database.url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=WAIT_TIMEOUT)
    assert (done.stdout, done.stderr) == ("answered\n", "")
