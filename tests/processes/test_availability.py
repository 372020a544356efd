"""The worker's answers while its database is unavailable, and its recovery without a restart."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.databases import PASSWORD, WORKER, Database
from support.ledger_queries import WAITS, amounts, held, lock_of, new_user, sessions
from support.pg_proxy import PgProxy, proxied
from support.postgres_server import TERMINATE, PostgresServer
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import SECRET, Answer, Worker, read_answer, sale, working
from webhook.ledger.migrate import migrate


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory() as folder:
        postgres = PostgresServer(Path(folder))
        yield postgres
        postgres.stop()


@pytest.fixture(scope="module")
def worker(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(postgres.database.url, tmp_path_factory.mktemp("worker")) as worker:
        yield worker


@contextmanager
def stopped(postgres: PostgresServer, _user_id: str) -> Iterator[None]:
    postgres.stop()
    yield
    postgres.start()


@contextmanager
def standby(postgres: PostgresServer, _user_id: str) -> Iterator[None]:
    with postgres.demoted():
        yield


@contextmanager
def user_locked(postgres: PostgresServer, user_id: str) -> Iterator[None]:
    with held(postgres.database.superuser_url, lock_of(user_id)):
        yield


def changed(change: str, back: str) -> Callable[[PostgresServer, str], AbstractContextManager[None]]:
    """Execute ``change`` and terminate the worker's connections; at the end of the block, execute ``back``."""

    @contextmanager
    def outage(postgres: PostgresServer, _user_id: str) -> Iterator[None]:
        postgres.execute(change, TERMINATE)
        yield
        postgres.execute(back)

    return outage


@dataclass(frozen=True)
class Outage:
    begin: Callable[[PostgresServer, str], AbstractContextManager[None]]
    is_ready: bool = False
    """Whether /readyz still returns 200, because it does not check for this fault."""


OUTAGES = {
    "server stopped": Outage(stopped),
    "server demoted to standby": Outage(standby),
    "wrong password": Outage(
        changed(f"alter role {WORKER} password 'changed'", f"alter role {WORKER} password '{PASSWORD}'")
    ),
    "too many connections": Outage(
        changed(f"alter role {WORKER} connection limit 0", f"alter role {WORKER} connection limit -1")
    ),
    "not a member of service_role": Outage(
        changed(f"revoke service_role from {WORKER}", f"grant service_role to {WORKER}")
    ),
    "schema missing": Outage(changed("alter schema billing rename to away", "alter schema away rename to billing")),
    "usage of the schema not granted": Outage(
        changed("revoke usage on schema billing from service_role", "grant usage on schema billing to service_role")
    ),
    "function missing": Outage(
        changed(
            "alter function billing.record(jsonb) rename to away", "alter function billing.away(jsonb) rename to record"
        ),
        is_ready=True,
    ),
    "insert not granted": Outage(
        changed(
            "revoke insert on public.transactions from service_role",
            "grant insert on public.transactions to service_role",
        ),
        is_ready=True,
    ),
    "user locked": Outage(user_locked, is_ready=True),
}


@dataclass(frozen=True)
class OutageReport:
    """The answers and the ledger during an outage and after it."""

    outage: Outage
    event: dict[str, Any]
    delivery: Answer
    readiness: Answer
    health: Answer
    recorded_meanwhile: list[int]
    redelivery: Answer
    second_redelivery: Answer
    recorded: list[int]
    readiness_afterwards: Answer
    log: str


@pytest.fixture(scope="module", params=OUTAGES)
def report(request: pytest.FixtureRequest, postgres: PostgresServer, worker: Worker) -> OutageReport:
    outage, log_before = OUTAGES[request.param], len(worker.log)
    with postgres.superuser() as superuser:
        user_id = new_user(superuser)
    event = sale(user_id, user_id)
    worker.deliver(sale(user_id, f"warm_{user_id}", credits=1))
    with outage.begin(postgres, user_id):
        delivery, readiness, health = worker.deliver(event), worker.get("/readyz"), worker.get("/healthz")
    with postgres.superuser() as superuser:
        recorded_meanwhile = amounts(superuser, user_id)
        redelivery, second_redelivery = worker.deliver(event), worker.deliver(event)
        recorded = amounts(superuser, user_id)
    return OutageReport(
        outage=outage,
        event=event,
        delivery=delivery,
        readiness=readiness,
        health=health,
        recorded_meanwhile=recorded_meanwhile,
        redelivery=redelivery,
        second_redelivery=second_redelivery,
        recorded=recorded,
        readiness_afterwards=worker.get("/readyz"),
        log=worker.log[log_before:],
    )


def test_delivery_in_an_outage_is_answered_503_with_retry_after(report: OutageReport) -> None:
    assert (report.delivery.status, report.delivery.headers["Retry-After"]) == (503, "10")


def test_answer_in_an_outage_is_json_without_details(report: OutageReport) -> None:
    assert report.delivery.headers["Content-Type"] == "application/json"
    assert report.delivery.body == {"error": "try again later"}


def test_delivery_in_an_outage_records_nothing(report: OutageReport) -> None:
    assert report.recorded_meanwhile == [1]


def test_readyz_in_an_outage_reports_the_faults_it_checks(report: OutageReport) -> None:
    """It returns 503, or 200 for a fault that it does not check."""
    assert report.readiness.status == (200 if report.outage.is_ready else 503)


def test_healthz_in_an_outage_is_200(report: OutageReport) -> None:
    assert report.health.status == 200


def test_log_in_an_outage_has_the_reason_and_no_private_data(report: OutageReport) -> None:
    """Private data are the signing secret, the password, object ids and customer details."""
    sold = report.event["data"]["object"]
    private = [SECRET, PASSWORD, "changed", sold["id"], sold["payment_intent"], *sold["customer_details"].values()]
    assert '"outcome":"unavailable","reason":"database"' in report.log
    assert [value for value in private if isinstance(value, str) and value in report.log] == []


def test_first_delivery_after_an_outage_is_recorded(report: OutageReport) -> None:
    assert (report.redelivery.status, report.redelivery.outcome) == (200, "recorded")


def test_deliveries_after_an_outage_record_the_sale_once(report: OutageReport) -> None:
    assert report.second_redelivery.outcome == "duplicate"
    assert report.recorded == [1, 100]


def test_readyz_after_an_outage_is_200(report: OutageReport) -> None:
    assert report.readiness_afterwards.status == 200


def test_worker_started_before_its_database_needs_no_restart(postgres: PostgresServer, tmp_path: Path) -> None:
    """It records the first delivery after the database starts."""
    with postgres.superuser() as superuser:
        user_id = new_user(superuser)
    postgres.stop()
    with working(postgres.database.url, tmp_path, until="/healthz") as early:
        refused = early.get("/readyz")
        postgres.start()
        assert (refused.status, early.deliver(sale(user_id, user_id)).outcome) == (503, "recorded")


def test_readyz_is_503_before_the_migration_and_200_after_it(empty_database: Database, tmp_path: Path) -> None:
    with working(empty_database.url, tmp_path, until="/healthz") as worker:
        before = worker.get("/readyz").status
        migrate(empty_database.admin_url)
        assert (before, worker.get("/readyz").status) == (503, 200)


def test_delivery_after_a_crash_of_postgres_is_recorded_once(postgres: PostgresServer, worker: Worker) -> None:
    with postgres.superuser() as superuser:
        user_id = new_user(superuser)
        worker.deliver(sale(user_id, f"warm_{user_id}", credits=1))
        [(backend,)] = superuser.execute(
            f"select pid from pg_stat_activity where usename = '{WORKER}' limit 1"
        ).fetchall()
        os.kill(backend, signal.SIGKILL)
    eventually(lambda: worker.deliver(sale(user_id, user_id)).status == 200)
    with postgres.superuser() as superuser:
        assert amounts(superuser, user_id) == [1, 100]


@pytest.fixture(scope="module")
def proxy(shared_database: Database) -> Iterator[PgProxy]:
    with proxied(shared_database.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def proxied_worker(proxy: PgProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(proxy.url, tmp_path_factory.mktemp("worker"), processes=1) as worker:
        yield worker


@pytest.fixture
def user_id(superuser: psycopg.Connection, proxy: PgProxy, proxied_worker: Worker) -> str:
    """A new user. The worker has an open connection, and the proxy's lists of messages are empty."""
    user_id = new_user(superuser)
    assert proxied_worker.answers("/readyz")
    proxy.frontend_messages.clear()
    proxy.backend_messages.clear()
    return user_id


def test_new_sale_on_an_open_connection_is_one_round_trip(proxy: PgProxy, proxied_worker: Worker, user_id: str) -> None:
    assert proxied_worker.deliver(sale(user_id, user_id)).outcome == "recorded"
    assert (proxy.frontend_messages, proxy.backend_messages.count(b"Z")) == ([b"Q"], 1)


def test_duplicate_on_an_open_connection_is_one_round_trip(
    proxy: PgProxy, proxied_worker: Worker, user_id: str
) -> None:
    proxied_worker.deliver(sale(user_id, user_id))
    assert proxied_worker.deliver(sale(user_id, user_id)).outcome == "duplicate"
    assert (proxy.frontend_messages, proxy.backend_messages.count(b"Z")) == ([b"Q"] * 2, 2)


def test_delivery_with_a_lost_postgres_answer_is_recorded_once(
    proxy: PgProxy, proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    """Postgres has committed before the connection is cut; the retry answers 200 and reports a duplicate."""
    proxy.answers_to_lose = 1
    answer = proxied_worker.deliver(sale(user_id, user_id))
    assert (answer.status, answer.outcome, proxy.answers_to_lose) == (200, "duplicate", 0)
    assert amounts(superuser, user_id) == [100]


def test_delivery_with_a_lost_query_is_retried_and_recorded(
    proxy: PgProxy, proxied_worker: Worker, user_id: str
) -> None:
    """The connection is cut before the query reaches Postgres."""
    proxy.queries_to_lose = 1
    answer = proxied_worker.deliver(sale(user_id, user_id))
    assert (answer.outcome, proxy.queries_to_lose) == ("recorded", 0)


def test_delivery_with_two_lost_postgres_answers_is_answered_503(
    proxy: PgProxy, proxied_worker: Worker, user_id: str
) -> None:
    """The worker retries only once."""
    proxy.answers_to_lose = 2
    answer = proxied_worker.deliver(sale(user_id, user_id))
    assert (answer.status, proxy.answers_to_lose) == (503, 0)


def test_redelivery_after_lost_postgres_answers_records_once(
    proxy: PgProxy, proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    proxy.answers_to_lose = 2
    proxied_worker.deliver(sale(user_id, user_id))
    assert proxied_worker.deliver(sale(user_id, user_id)).outcome == "duplicate"
    assert amounts(superuser, user_id) == [100]


def test_delivery_after_connections_were_terminated_is_recorded(
    proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    assert superuser.execute(TERMINATE).rowcount >= 1
    assert proxied_worker.deliver(sale(user_id, user_id)).outcome == "recorded"


def test_terminated_connections_do_not_use_up_the_retry(
    proxy: PgProxy, proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    """A delivery that finds all connections closed can still lose one query."""
    superuser.execute(TERMINATE)
    eventually(lambda: not proxy.open)
    proxy.queries_to_lose = 1
    assert proxied_worker.deliver(sale(user_id, user_id)).outcome == "recorded"


def test_delivery_to_an_unresponsive_postgres_is_answered_503(
    proxy: PgProxy, proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    proxy.is_silent = True
    try:
        assert proxied_worker.deliver(sale(user_id, user_id), seconds=12).status == 503
    finally:
        proxy.is_silent = False
        superuser.execute(TERMINATE)


@contextmanager
def in_flight(database: Database, worker: Worker, event: dict[str, Any], user_id: str) -> Iterator[Future[Answer]]:
    """Send a delivery whose transaction waits for the user's row lock until the block ends."""
    with ThreadPoolExecutor(1) as sender, held(database.superuser_url, lock_of(user_id)) as lock_holder:
        answer = sender.submit(worker.deliver, event)
        eventually(lambda: sessions(lock_holder, WAITS))
        yield answer


def test_delivery_whose_backend_is_terminated_is_recorded(
    shared_database: Database, proxied_worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    """The worker retries on a new connection while the row is still locked."""
    with in_flight(shared_database, proxied_worker, sale(user_id, user_id), user_id) as answer:
        superuser.execute(TERMINATE)
        eventually(lambda: sessions(superuser, WAITS))
    assert answer.result(WAIT_TIMEOUT).outcome == "recorded"


def begin_shutdown(worker: Worker) -> None:
    """Send SIGTERM, and wait until the worker accepts no connection. The kernel may still queue new ones."""
    worker.terminate()
    eventually(lambda: not worker.answers("/healthz", seconds=0.3))


def test_delivery_in_flight_at_sigterm_is_answered_200(
    database: Database, admin: psycopg.Connection, tmp_path: Path
) -> None:
    user_id = new_user(admin)
    with working(database.url, tmp_path, processes=1) as worker:
        with in_flight(database, worker, sale(user_id, user_id), user_id) as answer:
            begin_shutdown(worker)
        assert (answer.result(WAIT_TIMEOUT).status, answer.result().outcome) == (200, "recorded")


def test_delivery_after_sigterm_is_refused(database: Database, admin: psycopg.Connection, tmp_path: Path) -> None:
    user_id, late_user_id = new_user(admin), new_user(admin)
    with working(database.url, tmp_path, processes=1) as worker, ThreadPoolExecutor(1) as sender:
        with in_flight(database, worker, sale(user_id, user_id), user_id):
            begin_shutdown(worker)
            late = sender.submit(worker.deliver, sale(late_user_id, late_user_id))
        assert isinstance(late.exception(WAIT_TIMEOUT), ConnectionError)
    assert amounts(admin, late_user_id) == []


def test_worker_after_sigterm_exits_with_0(database: Database, tmp_path: Path) -> None:
    with working(database.url, tmp_path, processes=1) as worker:
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None)
        assert worker.process.exit_code == 0


def test_worker_after_sigterm_ignores_an_idle_connection(database: Database, tmp_path: Path) -> None:
    """Load balancers keep idle connections; waiting for one would delay a deploy until the graceful timeout."""
    with working(database.url, tmp_path, processes=1) as worker, worker.connected() as connection:
        connection.request("GET", "/healthz")
        read_answer(connection)
        worker.terminate()
        eventually(lambda: worker.process.exit_code is not None, seconds=10)


def test_redelivery_after_a_killed_process_records_once(
    database: Database, admin: psycopg.Connection, tmp_path: Path
) -> None:
    event = sale(user_id := new_user(admin), "killed")
    with working(database.url, tmp_path) as worker:
        with in_flight(database, worker, event, user_id) as answer:
            for pid in worker.pids:
                os.kill(pid, signal.SIGKILL)
            assert isinstance(answer.exception(WAIT_TIMEOUT), ConnectionError)
        eventually(lambda: worker.answers("/readyz"))
        assert worker.deliver(event).status == 200
    assert amounts(admin, user_id) == [100]
