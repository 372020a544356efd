"""SIGTERM under load: the worker answers each delivery that it started, starts no others, and exits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from support.databases import Database, Server
from support.ledger_queries import WAITS, held, lock_of, new_user, sessions
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import Worker, read_answer, sale, signed, working
from webhook.server.connection_limits import TIMEOUT as CLIENT_TIMEOUT

LANES = 12
GRACEFUL_TIMEOUT = 25
"""Seconds: webhook/server/gunicorn_conf.py."""
LINGER = 2
"""Seconds: webhook/server/worker.py."""


@dataclass
class Load:
    """Sales, each delivered once, over kept-alive connections and new ones."""

    url: str
    user_id: str
    answered: dict[str, int] = field(default_factory=dict)
    """Statuses by payment id."""
    unanswered: set[str] = field(default_factory=set)
    ended_at: float = 0

    def lane(self, *, kept_alive: bool) -> None:
        """Deliver sales one by one until the load has ended."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=WAIT_TIMEOUT)
        while not self.ended_at:
            name = uuid4().hex
            try:
                connection.request("POST", "/webhook", *signed(sale(self.user_id, name)))
                response = connection.getresponse()
                response.read()
                self.answered[f"pi_{name}"] = response.status
            except (OSError, HTTPException):
                self.unanswered.add(f"pi_{name}")
                connection.close()
            if not kept_alive:
                connection.close()


@dataclass(frozen=True)
class Shutdown:
    """The load, the exit and the recorded payments of a terminated worker."""

    load: Load
    exit_code: int | None
    seconds: float
    recorded: set[str]
    recorded_later: set[str]


@pytest.fixture(scope="module")
def shutdown(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shutdown]:
    with server.new_database(template) as database, working(database.url, tmp_path_factory.mktemp("end")) as worker:
        yield shut_down(worker, database)


def shut_down(worker: Worker, database: Database) -> Shutdown:
    with (
        psycopg.connect(database.superuser_url, autocommit=True) as superuser,
        ThreadPoolExecutor(LANES) as lanes,
    ):
        load = Load(worker.url, new_user(superuser))
        running = [lanes.submit(load.lane, kept_alive=bool(number % 2)) for number in range(LANES)]
        try:
            eventually(lambda: len(load.answered) > 100)
            worker.terminate()
            started = time.monotonic()
            eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT + 2)
        finally:
            load.ended_at = time.monotonic()
        recorded = payments(superuser)
        for lane in running:
            lane.result()
        return Shutdown(load, worker.process.exit_code, load.ended_at - started, recorded, payments(superuser))


def payments(connection: psycopg.Connection) -> set[str]:
    return {payment_id for (payment_id,) in connection.execute("select payment_id from public.transactions").fetchall()}


def test_load_continues_until_after_sigterm(shutdown: Shutdown) -> None:
    """Deliveries are answered before SIGTERM, and some deliveries after it are not."""
    assert len(shutdown.load.answered) > 100
    assert len(shutdown.load.unanswered) > 0


def test_deliveries_answered_200_are_those_recorded(shutdown: Shutdown) -> None:
    """This holds before and after SIGTERM."""
    assert shutdown.recorded == {payment_id for payment_id, status in shutdown.load.answered.items() if status == 200}
    assert shutdown.recorded & shutdown.load.unanswered == set()


def test_every_answer_before_and_after_sigterm_is_200(shutdown: Shutdown) -> None:
    """A graceful shutdown causes no error status."""
    assert set(shutdown.load.answered.values()) == {200}


def test_no_delivery_is_recorded_after_the_exit(shutdown: Shutdown) -> None:
    """No transaction continues after the worker has exited."""
    assert shutdown.recorded_later == shutdown.recorded


def test_worker_under_load_exits_in_half_the_graceful_timeout(shutdown: Shutdown) -> None:
    """The exit code is 0; a host sends SIGKILL soon after graceful_timeout."""
    assert (shutdown.exit_code, shutdown.seconds < GRACEFUL_TIMEOUT / 2) == (0, True)


@pytest.fixture
def user_id(admin: psycopg.Connection) -> str:
    return new_user(admin)


def test_worker_with_idle_connections_exits_soon_after_sigterm(database: Database, tmp_path: Path) -> None:
    """A load balancer keeps connections open; they must not delay the exit."""
    with working(database.url, tmp_path) as worker, ExitStack() as connections:
        for _ in range(20):
            connection = connections.enter_context(worker.connected())
            connection.request("GET", "/healthz")
            read_answer(connection)
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT / 2)


def test_connection_after_sigterm_is_refused_while_draining(database: Database, user_id: str, tmp_path: Path) -> None:
    """A refused client can connect elsewhere at once; a queued one would wait until the worker exits."""
    with working(database.url, tmp_path) as worker, ThreadPoolExecutor(1) as sender:
        with held(database.superuser_url, lock_of(user_id)) as lock_holder:
            answer = sender.submit(worker.deliver, sale(user_id, user_id))
            eventually(lambda: sessions(lock_holder, WAITS))
            worker.terminate()
            eventually(lambda: is_refused(worker), 3)
            assert not answer.done()
        assert answer.result(WAIT_TIMEOUT).outcome == "recorded"


def test_worker_that_is_starting_exits_soon_after_sigterm(database: Database, tmp_path: Path) -> None:
    """SIGTERM must also end a process that has not yet set up its signal handler."""
    with working(database.url, tmp_path, processes=8, until="/healthz") as worker:
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT / 2)


def test_delivery_on_a_closing_connection_is_answered_or_lost(
    database: Database, admin: psycopg.Connection, user_id: str, tmp_path: Path
) -> None:
    """It arrives when the worker closes idle connections, LINGER after SIGTERM; a lost one is not recorded."""
    with working(database.url, tmp_path) as worker, ExitStack() as opened:
        connections = [opened.enter_context(worker.connected()) for _ in range(40)]
        for connection in connections:
            connection.request("GET", "/healthz")
            read_answer(connection)
        worker.terminate()
        closing_at = time.monotonic() + LINGER - 0.1
        with ThreadPoolExecutor(len(connections)) as senders:
            answered = senders.map(
                lambda number: outcome_at(
                    closing_at + number * 0.005, connections[number], sale(user_id, f"{user_id}_{number}")
                ),
                range(len(connections)),
            )
            recorded = [f"pi_{user_id}_{number}" for number, outcome in enumerate(answered) if outcome == "recorded"]
        eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT / 2)
        assert set(recorded) == payments(admin)
        assert "Traceback" not in worker.log


def outcome_at(moment: float, connection: HTTPConnection, event: dict[str, Any]) -> str | None:
    """Deliver at that moment, and return the outcome; None if the connection is closed."""
    request = signed(event)
    time.sleep(max(moment - time.monotonic(), 0))
    with suppress(OSError, HTTPException):
        connection.request("POST", "/webhook", *request)
        return read_answer(connection).outcome
    return None


def test_stalled_client_does_not_delay_the_exit(database: Database, tmp_path: Path) -> None:
    """SIGTERM does not change the timeout of its request."""
    with working(database.url, tmp_path, processes=1) as worker, worker.connected() as connection:
        connection.putrequest("POST", "/webhook")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, CLIENT_TIMEOUT + 4)


def is_refused(worker: Worker) -> bool:
    try:
        with worker.connected(0.2):
            return False
    except ConnectionRefusedError:
        return True
