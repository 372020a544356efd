"""Metrics and logs of real gunicorn processes, while they come and go."""

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


def folders(parent: Path) -> list[Path]:
    return sorted(parent.glob("webhook-metrics-*"))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Where gunicorn makes its folder for metrics."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    return folder


@pytest.fixture
def worker(database: Database, tmp_path: Path, parent: Path) -> Iterator[Worker]:
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)) as worker:
        yield worker


def sales(admin: psycopg.Connection, number: int) -> list[dict[str, object]]:
    user_id = new_user(admin)
    return [sale(user_id, uuid4().hex) for _ in range(number)]


def test_metrics_count_the_deliveries_of_all_processes(worker: Worker, admin: psycopg.Connection) -> None:
    """Whichever process is asked, it tells of all."""
    deliver_at_once(sales(admin, 40), [worker])
    assert {worker.metrics()[RECORDED] for _ in range(10)} == {40}


def test_metrics_number_the_processes_whose_connections_they_tell(worker: Worker, admin: psycopg.Connection) -> None:
    """Numbers, which stay, not process ids, which do not."""
    told = {f'webhook_database_connections{{pid="{number}",state="idle"}}' for number in (1, 2)}
    eventually(lambda: deliver_at_once(sales(admin, 20), [worker]) and told <= worker.metrics().keys())


def test_metrics_after_processes_end_go_on_from_where_they_were(
    worker: Worker, admin: psycopg.Connection, parent: Path
) -> None:
    """Nothing counted is forgotten, and the files stay as few, whether they were killed or ended by themselves."""
    deliver_at_once(sales(admin, 20), [worker])
    [folder] = folders(parent)
    for ended, by in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]):
        pids = worker.pids
        os.kill(pids[-1], by)
        eventually(lambda before=pids: len(worker.pids) > len(before) and worker.answers("/readyz"))
        deliver_at_once(sales(admin, 10), [worker])
        assert worker.metrics()[RECORDED] == 30 + 10 * ended
    kinds = ("counter", "histogram", "gauge_max", "gauge_liveall")
    assert {each.name for each in folder.iterdir()} <= {f"{kind}_{number}.db" for kind in kinds for number in range(3)}


def test_metrics_after_a_process_is_killed_tell_none_of_its_connections(
    database: Database, tmp_path: Path, admin: psycopg.Connection
) -> None:
    """The one that takes its place does not inherit what it was about."""
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


def test_metrics_folder_is_private_and_gone_at_the_end(database: Database, tmp_path: Path, parent: Path) -> None:
    """Others on the machine cannot look in, a disk that fills up later takes no room away, SIGTERM leaves nothing."""
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)):
        [folder] = folders(parent)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_blocks * 512 >= file.stat().st_size > 0 for file in folder.iterdir())
    assert folders(parent) == []


def test_metrics_folder_left_by_a_killed_gunicorn_is_removed_by_the_next(
    database: Database, tmp_path: Path, parent: Path
) -> None:
    """That of one which still runs is not, however old it looks."""
    left = parent / "webhook-metrics-left"
    left.mkdir()
    with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)):
        running = [folder for folder in folders(parent) if folder != left]
        an_hour_ago = time.time() - 3600
        for folder in (left, *running):
            os.utime(folder, (an_hour_ago, an_hour_ago))
        with working(database.url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(parent)) as second:
            assert left not in folders(parent)
            assert {*running} < {*folders(parent)}
            assert second.metrics()["webhook_database_up"] == 1


def test_metrics_folder_emptied_by_somebody_stops_no_delivery(
    worker: Worker, admin: psycopg.Connection, parent: Path
) -> None:
    """Counts are lost then, processes are not: neither those that run nor those that take a dead one's place."""
    [folder] = folders(parent)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    before = worker.pids
    os.kill(before[-1], signal.SIGKILL)
    eventually(lambda: len(worker.pids) > len(before) and worker.answers("/readyz"))
    answers = deliver_at_once(sales(admin, 20), [worker])
    assert {answer.outcome for answer in answers} == {"recorded"}


def test_free_number_is_the_smallest_that_no_process_has() -> None:
    """A dead process's number is used again."""
    assert [free_slot(taken) for taken in ([], [1, 2], [2, 3], [1, 3])] == [1, 3, 1, 2]


def test_metrics_of_a_dead_process_are_reset_in_place(tmp_path: Path) -> None:
    """A new file might find no space on a full disk, and the next process would end by SIGBUS."""
    file = tmp_path / "gauge_liveall_1.db"
    file.write_bytes(b"x" * (1 << 18))
    before = file.stat()
    clear_slot(1, str(tmp_path))
    assert (file.stat().st_ino, file.stat().st_blocks) == (before.st_ino, before.st_blocks)
    assert file.read_bytes() == bytes(1 << 18)


def test_metrics_folder_that_cannot_be_made_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """The line names the variable; exit code 2."""
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


def test_metrics_while_the_database_hangs_tell_the_rest_within_two_seconds(database: Database, tmp_path: Path) -> None:
    """Scrape after scrape; and once it is back, everything again."""
    with proxied(database.url) as proxy, working(proxy.url, tmp_path, processes=1) as worker:
        assert worker.metrics()["webhook_parked_events"] == 0
        proxy.is_silent = True
        for _ in range(3):
            asked = time.monotonic()
            told = worker.metrics()
            assert time.monotonic() - asked < 2
            assert told["webhook_database_up"] == 0
            assert "webhook_parked_events" not in told
            assert RECORDED not in told
        proxy.is_silent = False
        eventually(lambda: worker.metrics().get("webhook_parked_events") == 0)


def test_log_of_processes_is_json_line_by_line(worker: Worker, admin: psycopg.Connection) -> None:
    """gunicorn's lines too; and a delivery is one line, with no other for its request."""
    [event] = sales(admin, 1)
    worker.deliver(event)
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert {(line["level"], line["message"]) for line in lines} >= {("info", "delivery")}
    assert "gunicorn.error" in {line.get("logger") for line in lines}
    [line] = [line for line in lines if event["id"] in str(line)]
    assert set(line) == {"message", "level", "time", "event_id", "type", "outcome", "duration_ms"}
    assert 0 < line["duration_ms"] < 10_000


def test_log_asked_for_as_text_is_readable(database: Database, tmp_path: Path) -> None:
    """LOG_FORMAT says so, wherever the lines go."""
    with working(database.url, tmp_path, processes=1, LOG_FORMAT="text") as worker:
        worker.deliver({"id": "evt_1", "type": "customer.created", "data": {"object": {}}})
        eventually(lambda: "evt_1" in worker.log)
        [line] = [line for line in worker.log.splitlines() if "evt_1" in line]
    assert "delivery" in line
    assert "event_id=evt_1 type=customer.created outcome=ignored reason=event_type duration_ms=" in line
    assert "Booting worker with pid" in worker.log


def test_first_question_to_stripe_leaves_the_process_as_it_is(
    database: Database, admin: psycopg.Connection, tmp_path: Path
) -> None:
    """The SDK looks at the system with a program of its own, in whose place nothing of gevent's may run."""
    with (
        serving(StripeStandIn()) as stripe,
        working(database.url, tmp_path, STRIPE_API_KEY="rk_test_1", STRIPE_API_BASE=stripe.url) as worker,
    ):
        event = sale(new_user(admin), "asks")
        del event["data"]["object"]["metadata"]["credits"]
        assert worker.deliver(event).status == 503
        assert stripe.requests
        assert "Exception ignored" not in worker.log
