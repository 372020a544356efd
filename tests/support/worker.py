"""Real gunicorn workers, deliveries to them over real HTTP, and a wire to Postgres that can be tapped and cut."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg

from support.recorded import session_event, sign
from webhook.dev import supervise
from webhook.dev.postgres import free_port
from webhook.settings import child_environment

SECRET = "whsec_only_for_tests"
BATCHES = 2
"""So many of a process's batches are under way once the first of them is slow: webhook/group_commit.py."""
GUNICORN = (sys.executable, "-m", "gunicorn", "--config", "python:webhook.server.gunicorn_conf")
PATIENCE = 20
"""Seconds after which a test fails rather than waits on."""


def eventually(is_so: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until ``is_so`` returns something true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Message
    body: dict[str, Any]

    @property
    def outcome(self) -> str | None:
        return self.body.get("outcome")


@dataclass(frozen=True)
class Worker:
    """gunicorn as the Procfile starts it."""

    url: str
    log_file: Path
    process: supervise.SupervisedProcess

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    @property
    def pids(self) -> list[int]:
        """The processes that were started to answer, oldest first."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    @property
    def master(self) -> psutil.Process:
        """gunicorn itself; its children are the processes that answer."""
        [master] = psutil.Process(self.process.process.pid).children()
        return master

    def get(self, path: str, seconds: float = PATIENCE) -> Answer:
        with self.connected(seconds) as connection:
            connection.request("GET", path)
            return read_answer(connection)

    def metrics(self) -> dict[str, float]:
        """What GET /metrics tells, by name and labels as they stand there."""
        with self.connected() as connection:
            connection.request("GET", "/metrics")
            return samples(connection.getresponse().read().decode())

    def deliver(self, event: dict[str, Any], seconds: float = PATIENCE) -> Answer:
        with self.connected(seconds) as connection:
            return _post(connection, event)

    def deliver_rounds(self, rounds: Sequence[Sequence[dict[str, Any]]]) -> list[Answer]:
        """Deliver round after round over kept-alive connections: the events of a round leave at one moment."""
        lanes = max(len(each) for each in rounds)
        start = threading.Barrier(lanes, timeout=PATIENCE)

        def deliver_lane(lane: int) -> list[Answer]:
            answers = []
            with self.connected() as connection:
                for each in rounds:
                    request = signed(each[lane]) if lane < len(each) else None
                    start.wait()
                    if request:
                        connection.request("POST", "/webhook", *request)
                        answers.append(read_answer(connection))
            return answers

        with ThreadPoolExecutor(lanes) as senders:
            return [answer for lane in senders.map(deliver_lane, range(lanes)) for answer in lane]

    def answers(self, path: str, seconds: float = PATIENCE) -> bool:
        """Whether GET ``path`` is answered 200 within so many seconds."""
        with suppress(ConnectionError, TimeoutError):
            return self.get(path, seconds).status == 200
        return False

    def terminate(self) -> None:
        """Send SIGTERM, and go on at once."""
        self.process.process.send_signal(signal.SIGTERM)

    @contextmanager
    def connected(self, seconds: float = PATIENCE) -> Iterator[HTTPConnection]:
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=seconds)) as connection:
            connection.connect()
            yield connection


def samples(exposed: str) -> dict[str, float]:
    """The values in Prometheus's text format, by name and labels, each of which stands there once."""
    lines = [line.rpartition(" ") for line in exposed.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, _, value in lines}
    assert len(values) == len(lines)
    return values


def deliver_at_once(
    events: Sequence[dict[str, Any]], workers: Sequence[Worker], *, connections: int = 0
) -> list[Answer]:
    """Deliver to the workers by turns, over kept-alive ``connections`` that start together; by default one an event."""
    connections = connections or len(events)
    start = threading.Barrier(connections, timeout=PATIENCE)

    def deliver_share(first: int) -> list[Answer]:
        with workers[first % len(workers)].connected() as connection:
            start.wait()
            return [_post(connection, event) for event in events[first::connections]]

    with ThreadPoolExecutor(connections) as senders:
        return [answer for share in senders.map(deliver_share, range(connections)) for answer in share]


@contextmanager
def working(  # noqa: PLR0913 - one for each thing a test is about
    database_url: str,
    folder: Path,
    *,
    processes: int = 2,
    until: str = "/readyz",
    secrets: str = SECRET,
    command: Sequence[str] = GUNICORN,
    port: int = 0,
    **variables: str,
) -> Iterator[Worker]:
    """Run gunicorn until the end of the block, which begins once GET ``until`` is answered 200.

    The ``variables`` are added to its environment.
    """
    port = port or free_port()
    environment = child_environment(
        {
            "DATABASE_URL": database_url,
            "STRIPE_WEBHOOK_SECRET": secrets,
            "STRIPE_LIVEMODE": "false",
            "PORT": str(port),
            "WEB_CONCURRENCY": str(processes),
            **variables,
        },
        without=("PG", "STRIPE_", "GUNICORN_", "OTEL_", "LOG_", "METRICS_", "PROMETHEUS_"),
    )
    log_file = folder / f"worker-{port}.log"
    with log_file.open("ab") as log:
        worker = Worker(
            f"http://127.0.0.1:{port}", log_file, supervise.start(command, environment=environment, output=log)
        )
        try:
            eventually(lambda: worker.answers(until) or worker.process.exit_code is not None)
            assert worker.process.exit_code is None, worker.log
            yield worker
        finally:
            worker.process.stop()


def body_of(event: dict[str, Any]) -> str:
    """The event as it is sent: only what JSON has to escape is escaped."""
    return json.dumps(event, ensure_ascii=False)


def _post(connection: HTTPConnection, event: dict[str, Any]) -> Answer:
    connection.request("POST", "/webhook", *signed(event))
    return read_answer(connection)


def signed(event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    body = body_of(event).encode()
    return body, {"Content-Type": "application/json", "Stripe-Signature": sign(body, SECRET)}


def read_answer(connection: HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, response.headers, json.loads(response.read()))


def sale(user_id: str, name: str, *, event_id: str = "", credits: int = 100) -> dict[str, Any]:  # noqa: A002
    """The event of a paid Checkout Session whose payment is ``pi_<name>``."""
    return session_event(
        event_id=event_id or f"evt_{name}",
        id=f"cs_test_{name}",
        payment_intent=f"pi_{name}",
        user_id=user_id,
        credits=credits,
    )


def new_user(connection: psycopg.Connection) -> str:
    user_id = str(uuid4())
    connection.execute("insert into auth.users (id, email) values (%s, %s)", [user_id, f"{user_id}@example.com"])
    return user_id


def amounts(connection: psycopg.Connection, user_id: str) -> list[int]:
    """The user's ledger, in credits, once it is certain that the balance is its sum."""
    query = """
        select coalesce(array_agg(amount order by amount) filter (where amount is not null), '{}'), credits_balance
        from public.users
        left join public.transactions on user_id = users.id
        where users.id = %s
        group by users.id
    """
    [(entries, balance)] = connection.execute(query, [user_id]).fetchall()
    assert balance == sum(entries)
    return entries


def sessions(connection: psycopg.Connection, condition: str) -> int:
    """How many sessions of this database, this one apart, meet the ``condition`` on pg_stat_activity."""
    query = f"""
        select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and ({condition})
    """
    connection.execute("select pg_stat_clear_snapshot()")  # else a transaction goes on seeing what it saw first
    return connection.execute(query).rowcount


WAITS = "wait_event_type = 'Lock'"


@contextmanager
def held(url: str, lock: str) -> Iterator[psycopg.Connection]:
    """Somebody else has executed the ``lock`` statement, until the block ends or the connection rolls back."""
    with psycopg.connect(url) as connection:
        connection.execute(lock)
        yield connection
        connection.rollback()


def failing_with(words: str) -> str:
    """What makes the ledger's table refuse every row with these words, such as a constraint's that quote it."""
    return f"""
        create function public.fail() returns trigger language plpgsql
        as $$ begin raise exception '{words}' using detail = '{words}'; end $$;
        create trigger fail before insert on public.transactions for each row execute function public.fail();
    """


def lock_of(user_id: str) -> str:
    return f"select from public.users where id = '{user_id}' for update"


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
