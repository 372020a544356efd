"""Real gunicorn processes, and deliveries to them over real HTTP."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from support.delivery import SECRET
from support.ports import free_port
from support.recorded import session_event, sign
from support.waiting import WAIT_TIMEOUT, eventually
from webhook.dev import supervise
from webhook.settings import child_environment

BATCHES = 2
"""The number of parallel batches of a process when the first is slow: webhook/ledger/group_commit.py."""
GUNICORN = (sys.executable, "-m", "gunicorn", "--config", "python:webhook.server.gunicorn_conf")


@dataclass(frozen=True)
class Answer:
    """An HTTP response with a JSON body."""

    status: int
    headers: Message
    body: dict[str, Any]

    @property
    def outcome(self) -> str | None:
        return self.body.get("outcome")


@dataclass(frozen=True)
class Worker:
    """A gunicorn server as the Procfile starts it."""

    url: str
    log_file: Path
    process: supervise.SupervisedProcess

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    @property
    def pids(self) -> list[int]:
        """The ids of all worker processes started so far, oldest first."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    @property
    def master(self) -> psutil.Process:
        """gunicorn's master process, whose children are the worker processes."""
        [master] = psutil.Process(self.process.process.pid).children()
        return master

    def get(self, path: str, seconds: float = WAIT_TIMEOUT) -> Answer:
        with self.connected(seconds) as connection:
            connection.request("GET", path)
            return read_answer(connection)

    def metrics(self) -> dict[str, float]:
        """Return the samples of GET /metrics by their exposed name and labels."""
        with self.connected() as connection:
            connection.request("GET", "/metrics")
            return samples(connection.getresponse().read().decode())

    def deliver(self, event: dict[str, Any], seconds: float = WAIT_TIMEOUT) -> Answer:
        with self.connected(seconds) as connection:
            return _post(connection, event)

    def deliver_rounds(self, rounds: Sequence[Sequence[dict[str, Any]]]) -> list[Answer]:
        """Deliver the rounds in order over kept-alive connections; the events of one round are sent together."""
        lanes = max(len(each) for each in rounds)
        start = threading.Barrier(lanes, timeout=WAIT_TIMEOUT)

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

    def answers(self, path: str, seconds: float = WAIT_TIMEOUT) -> bool:
        """Return whether the response to GET ``path`` is 200 within this many seconds."""
        with suppress(ConnectionError, TimeoutError):
            return self.get(path, seconds).status == 200
        return False

    def terminate(self) -> None:
        """Send SIGTERM without waiting for the exit."""
        self.process.process.send_signal(signal.SIGTERM)

    @contextmanager
    def connected(self, seconds: float = WAIT_TIMEOUT) -> Iterator[HTTPConnection]:
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=seconds)) as connection:
            connection.connect()
            yield connection


def samples(exposed: str) -> dict[str, float]:
    """Return the values in Prometheus's text format by name and labels, none of which may occur twice."""
    lines = [line.rpartition(" ") for line in exposed.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, _, value in lines}
    assert len(values) == len(lines)
    return values


def deliver_at_once(
    events: Sequence[dict[str, Any]], workers: Sequence[Worker], *, connections: int = 0
) -> list[Answer]:
    """Deliver to the workers in turn, over kept-alive ``connections`` (default: one per event) that start together."""
    connections = connections or len(events)
    start = threading.Barrier(connections, timeout=WAIT_TIMEOUT)

    def deliver_share(first: int) -> list[Answer]:
        with workers[first % len(workers)].connected() as connection:
            start.wait()
            return [_post(connection, event) for event in events[first::connections]]

    with ThreadPoolExecutor(connections) as senders:
        return [answer for share in senders.map(deliver_share, range(connections)) for answer in share]


@contextmanager
def working(  # noqa: PLR0913 - one for each value that tests vary
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
    """Run gunicorn until the end of the block, which begins once the response to GET ``until`` is 200.

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
        without=("PG", "STRIPE_", "GUNICORN_", "OTEL_", "LOG_", "METRICS_", "PROMETHEUS_", "CONSOLE_", "OPERATOR_"),
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
    """Return the event as it is sent: only characters that JSON must escape are escaped."""
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
    """Return the event of a paid Checkout Session whose payment is ``pi_<name>``."""
    return session_event(
        event_id=event_id or f"evt_{name}",
        id=f"cs_test_{name}",
        payment_intent=f"pi_{name}",
        user_id=user_id,
        credits=credits,
    )
