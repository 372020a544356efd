"""Metrics and logs of real gunicorn processes, which end and are replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from support.databases import Database
from support.ledger_queries import held, lock_of, new_user
from support.pg_proxy import proxied
from support.stripe_stand_in import StripeStandIn, serving
from support.waiting import eventually
from support.worker import Worker, deliver_at_once, sale, working
from webhook.observability.multiprocess import clear_slot, free_slot

RECORDED = 'webhook_deliveries_total{outcome="recorded",reason="",type="checkout.session.completed"}'


def metrics_directories(parent: Path) -> list[Path]:
    return sorted(parent.glob("webhook-metrics-*"))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The directory in which gunicorn creates its metrics directory."""
    parent = tmp_path / "metrics"
    parent.mkdir()
    return parent


@pytest.fixture
def worker(database: Database, tmp_path: Path, parent: Path) -> Iterator[Worker]:
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)) as worker:
        yield worker


def sales(admin: psycopg.Connection, number: int) -> list[dict[str, object]]:
    user_id = new_user(admin)
    return [sale(user_id, uuid4().hex) for _ in range(number)]


def test_metrics_count_the_deliveries_of_all_processes(worker: Worker, admin: psycopg.Connection) -> None:
    """Each process reports the counts of all processes."""
    deliver_at_once(sales(admin, 40), [worker])
    assert {worker.metrics()[RECORDED] for _ in range(10)} == {40}


def test_connection_metrics_have_the_process_slot_as_pid(worker: Worker, admin: psycopg.Connection) -> None:
    """A new process takes over the slot of the dead one, but not its process id."""
    expected = {f'webhook_database_connections{{pid="{number}",state="idle"}}' for number in (1, 2)}
    eventually(lambda: deliver_at_once(sales(admin, 20), [worker]) and expected <= worker.metrics().keys())


def test_counters_continue_after_processes_are_replaced(
    worker: Worker, admin: psycopg.Connection, parent: Path
) -> None:
    """After SIGKILL and SIGTERM, no count is lost and no file is added."""
    deliver_at_once(sales(admin, 20), [worker])
    [directory] = metrics_directories(parent)
    for ended, by in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]):
        pids = worker.pids
        os.kill(pids[-1], by)
        eventually(lambda before=pids: len(worker.pids) > len(before) and worker.answers("/readyz"))
        deliver_at_once(sales(admin, 10), [worker])
        assert worker.metrics()[RECORDED] == 30 + 10 * ended
    kinds = ("counter", "histogram", "gauge_max", "gauge_liveall")
    assert {each.name for each in directory.iterdir()} <= {
        f"{kind}_{number}.db" for kind in kinds for number in range(3)
    }


def test_connections_of_a_killed_process_leave_the_metrics(
    database: Database, tmp_path: Path, admin: psycopg.Connection
) -> None:
    """The process that replaces it starts with no connection in use."""
    in_use = 'webhook_database_connections{pid="1",state="in_use"}'
    user_id = new_user(admin)
    with (
        working(database.url, tmp_path, processes=1) as worker,
        held(database.admin_url, lock_of(user_id)),
        ThreadPoolExecutor() as sender,
    ):
        delivery = sender.submit(worker.deliver, sale(user_id, "held"))
        eventually(lambda: worker.metrics().get(in_use) == 1)
        os.kill(worker.pids[0], signal.SIGKILL)
        assert isinstance(delivery.exception(), ConnectionError)
        eventually(lambda: len(worker.pids) == 2 and worker.answers("/readyz"))
        assert worker.metrics()[in_use] == 0


def test_metrics_directory_is_private_and_removed_at_exit(database: Database, tmp_path: Path, parent: Path) -> None:
    """Its disk space is reserved at the start, in case the disk fills up later."""
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)):
        [directory] = metrics_directories(parent)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_blocks * 512 >= file.stat().st_size > 0 for file in directory.iterdir())
    assert metrics_directories(parent) == []


def test_start_removes_the_metrics_of_a_killed_gunicorn(database: Database, tmp_path: Path, parent: Path) -> None:
    """It keeps the directory of a running gunicorn, even an old one."""
    left = parent / "webhook-metrics-left"
    left.mkdir()
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)):
        running = [directory for directory in metrics_directories(parent) if directory != left]
        an_hour_ago = time.time() - 3600
        for directory in (left, *running):
            os.utime(directory, (an_hour_ago, an_hour_ago))
        with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)) as second:
            assert left not in metrics_directories(parent)
            assert {*running} < {*metrics_directories(parent)}
            assert second.metrics()["webhook_database_up"] == 1


def test_deleted_metrics_directory_stops_no_delivery(worker: Worker, admin: psycopg.Connection, parent: Path) -> None:
    """Counts are lost, but running and replaced processes still record sales."""
    [directory] = metrics_directories(parent)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    before = worker.pids
    os.kill(before[-1], signal.SIGKILL)
    eventually(lambda: len(worker.pids) > len(before) and worker.answers("/readyz"))
    answers = deliver_at_once(sales(admin, 20), [worker])
    assert {answer.outcome for answer in answers} == {"recorded"}


def test_free_slot_is_the_smallest_unused_number() -> None:
    """The slot of a dead process is reused."""
    assert [free_slot(taken) for taken in ([], [1, 2], [2, 3], [1, 3])] == [1, 3, 1, 2]


def test_metrics_of_a_dead_process_are_reset_in_place(tmp_path: Path) -> None:
    """On a full disk, a new file would have no space, and SIGBUS would end the next process."""
    file = tmp_path / "gauge_liveall_1.db"
    file.write_bytes(b"x" * (1 << 18))
    before = file.stat()
    clear_slot(1, str(tmp_path))
    assert (file.stat().st_ino, file.stat().st_blocks) == (before.st_ino, before.st_blocks)
    assert file.read_bytes() == bytes(1 << 18)


def test_start_without_the_metrics_parent_directory_fails(tmp_path: Path) -> None:
    """It prints one line that names the variable, and exits with 2."""
    environment = {
        "DATABASE_URL": "postgresql://worker@127.0.0.1:1/postgres",
        "STRIPE_WEBHOOK_SECRET": "whsec_only_for_tests",
        "STRIPE_LIVEMODE": "false",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "missing"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:webhook.server.gunicorn_conf", "--check-config"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("webhook: PROMETHEUS_MULTIPROC_DIR")
    assert done.stderr.count("\n") == 1


def test_metrics_with_a_hanging_database_take_under_two_seconds(
    database: Database, admin: psycopg.Connection, tmp_path: Path
) -> None:
    """Each scrape omits the database's metrics until the database responds again, and has all others."""
    [event] = sales(admin, 1)
    with proxied(database.url) as proxy, working(proxy.url, tmp_path, processes=1) as worker:
        worker.deliver(event)
        assert worker.metrics()["webhook_parked_events"] == 0
        proxy.is_silent = True
        for _ in range(3):
            started = time.monotonic()
            metrics = worker.metrics()
            assert time.monotonic() - started < 2
            assert metrics["webhook_database_up"] == 0
            assert "webhook_parked_events" not in metrics
            assert metrics[RECORDED] == 1
        proxy.is_silent = False
        eventually(lambda: worker.metrics().get("webhook_parked_events") == 0)


def test_each_log_line_of_all_processes_is_json(worker: Worker, admin: psycopg.Connection) -> None:
    """Gunicorn's lines are JSON too, and a delivery has one line and no access log line."""
    [event] = sales(admin, 1)
    worker.deliver(event)
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert {(line["level"], line["message"]) for line in lines} >= {("info", "delivery")}
    assert "gunicorn.error" in {line.get("logger") for line in lines}
    [line] = [line for line in lines if event["id"] in str(line)]
    assert set(line) == {"message", "level", "time", "event_id", "type", "outcome", "duration_ms"}
    assert 0 < line["duration_ms"] < 10_000


def test_log_with_log_format_text_is_readable(database: Database, tmp_path: Path) -> None:
    """LOG_FORMAT=text also applies if the output is a file."""
    with working(database.url, tmp_path, processes=1, LOG_FORMAT="text") as worker:
        worker.deliver({"id": "evt_1", "type": "customer.created", "data": {"object": {}}})
        eventually(lambda: "evt_1" in worker.log)
        [line] = [line for line in worker.log.splitlines() if "evt_1" in line]
    assert "delivery" in line
    assert "event_id=evt_1 type=customer.created outcome=ignored reason=event_type duration_ms=" in line
    assert "Booting worker with pid" in worker.log


def test_first_stripe_request_causes_no_ignored_exception(
    database: Database, admin: psycopg.Connection, tmp_path: Path
) -> None:
    """The SDK starts a program to identify the system; no gevent hook may run in that child process."""
    with (
        serving(StripeStandIn()) as stripe,
        working(database.url, tmp_path, STRIPE_API_KEY="rk_test_1", STRIPE_API_BASE=stripe.url) as worker,
    ):
        event = sale(new_user(admin), "asks")
        del event["data"]["object"]["metadata"]["credits"]
        assert worker.deliver(event).body == {"outcome": "parked", "reason": "missing_object"}
        assert stripe.requests
        assert "Exception ignored" not in worker.log
