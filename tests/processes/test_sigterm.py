"""SIGTERM under load: what was taken up is answered, what is not answered was never begun, and it ends."""

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
from support.waiting import PATIENCE, eventually
from support.worker import Worker, read_answer, sale, signed, working
from webhook.server.connection_limits import TIMEOUT as CLIENT_TIMEOUT

LANES = 12
GRACEFUL_TIMEOUT = 25
"""Seconds: webhook/gunicorn_conf.py."""
LINGER = 2
"""Seconds: webhook/gunicorn_worker.py."""


@dataclass
class Load:
    """Sales, each delivered once, over kept-alive connections and new ones."""

    url: str
    user_id: str
    answered: dict[str, int] = field(default_factory=dict)
    """The statuses, by payment."""
    unanswered: set[str] = field(default_factory=set)
    ended_at: float = 0

    def lane(self, *, kept_alive: bool) -> None:
        """Deliver until the worker takes nothing any more."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE)
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
class End:
    """How it went."""

    load: Load
    exit_code: int | None
    seconds: float
    recorded: set[str]
    recorded_later: set[str]


@pytest.fixture(scope="module")
def end(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[End]:
    with server.new_database(template) as database, working(database.url, tmp_path_factory.mktemp("end")) as worker:
        yield terminated(worker, database)


def terminated(worker: Worker, database: Database) -> End:
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
        return End(load, worker.process.exit_code, load.ended_at - started, recorded, payments(superuser))


def payments(connection: psycopg.Connection) -> set[str]:
    return {payment_id for (payment_id,) in connection.execute("select payment_id from public.transactions").fetchall()}


def test_load_at_sigterm_is_cut_off_in_the_middle(end: End) -> None:
    """There was a load before, and there still was one when nothing was taken any more."""
    assert len(end.load.answered) > 100
    assert len(end.load.unanswered) > 0


def test_delivery_begun_before_or_after_sigterm_is_answered(end: End) -> None:
    """Whatever was recorded was answered 200, and what was answered 200 is recorded."""
    assert end.recorded == {payment_id for payment_id, status in end.load.answered.items() if status == 200}
    assert end.recorded & end.load.unanswered == set()


def test_delivery_answered_while_draining_is_answered_200(end: End) -> None:
    """Nobody is told that something is wrong."""
    assert set(end.load.answered.values()) == {200}


def test_delivery_after_the_end_is_not_begun(end: End) -> None:
    """Nothing goes on behind the back of a worker that has ended."""
    assert end.recorded_later == end.recorded


def test_worker_under_load_ends_well_long_before_it_is_killed(end: End) -> None:
    """Its host would kill it a little after graceful_timeout."""
    assert (end.exit_code, end.seconds < GRACEFUL_TIMEOUT / 2) == (0, True)


@pytest.fixture
def user_id(admin: psycopg.Connection) -> str:
    return new_user(admin)


def test_worker_with_idle_kept_alive_connections_ends_soon_after_sigterm(database: Database, tmp_path: Path) -> None:
    """A load balancer keeps its connections open; they must not keep the worker from ending."""
    with working(database.url, tmp_path) as worker, ExitStack() as connections:
        for _ in range(20):
            connection = connections.enter_context(worker.connected())
            connection.request("GET", "/healthz")
            read_answer(connection)
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT / 2)


def test_connection_after_sigterm_is_refused_while_a_delivery_is_still_in_flight(
    database: Database, user_id: str, tmp_path: Path
) -> None:
    """Whoever comes then is told so at once, and goes elsewhere: nobody waits in a queue that nobody serves."""
    with working(database.url, tmp_path) as worker, ThreadPoolExecutor(1) as sender:
        with held(database.superuser_url, lock_of(user_id)) as lock_holder:
            answer = sender.submit(worker.deliver, sale(user_id, user_id))
            eventually(lambda: sessions(lock_holder, WAITS))
            worker.terminate()
            eventually(lambda: is_refused(worker), 3)
            assert not answer.done()
        assert answer.result(PATIENCE).outcome == "recorded"


def test_worker_whose_processes_are_still_starting_ends_soon_after_sigterm(database: Database, tmp_path: Path) -> None:
    """A process that is told to end before it can hear so must not be waited for until it is killed."""
    with working(database.url, tmp_path, processes=8, until="/healthz") as worker:
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, GRACEFUL_TIMEOUT / 2)


def test_delivery_at_the_moment_when_idle_connections_are_closed_is_answered_or_not_begun(
    database: Database, admin: psycopg.Connection, user_id: str, tmp_path: Path
) -> None:
    """It comes on a kept-alive connection, two seconds after SIGTERM."""
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
    """What becomes of a delivery that is sent then; nothing where its connection is closed."""
    request = signed(event)
    time.sleep(max(moment - time.monotonic(), 0))
    with suppress(OSError, HTTPException):
        connection.request("POST", "/webhook", *request)
        return read_answer(connection).outcome
    return None


def test_stalled_client_does_not_hold_up_the_end(database: Database, tmp_path: Path) -> None:
    """It is waited for no longer than at any other time."""
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
