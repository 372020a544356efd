"""Faults under load: no delivery is lost or recorded twice, and the worker recovers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from support import faults
from support.databases import new_folder
from support.faults import Fault, Target
from support.ledger_queries import new_user
from support.load import Load, delivering
from support.model import expected_balances, new_id
from support.pooler import needs_pgbouncer, pooling
from support.postgres_server import PostgresServer
from support.waiting import eventually
from support.worker import Worker, sale, working
from webhook.cli import commands

SECONDS_TO_BE_HEALTHY = 2

FAULTS = {
    "workers killed": faults.workers_killed,
    "master killed": faults.master_killed,
    "connections terminated": faults.connections_terminated,
    "server crashed": faults.server_crashed,
    "server hangs": faults.server_hangs,
    "server demoted to standby": faults.server_demoted,
    "pooler restarted": faults.pooler_restarted,
    **(
        {"file system full": faults.disk_full}
        if faults.can_mount()
        else {"disk full, raised by a trigger: no file system can be mounted here": faults.disk_full_simulated}
    ),
}
MARKS = {
    "pooler restarted": [needs_pgbouncer],
    "master killed": [pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphaned processes at once")],
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with new_folder() as folder:
        postgres = PostgresServer(folder)
        yield postgres
        postgres.stop()


@dataclass(frozen=True)
class Aftermath:
    """The result of a load with a fault, and the state of the ledger after it."""

    load: Load
    has_happened: bool
    seconds_to_be_healthy: float
    lost: list[str]
    balances: dict[str, int]
    sums: dict[str, int]
    findings: str


def run_under_load(postgres: PostgresServer, fault: Fault, target: Target, user_id: str) -> Aftermath:
    """Deliver the load, inject the fault, and read the ledger."""
    with delivering(target.load):
        has_happened = fault(target)
        seconds = seconds_until_healthy(target.worker, sale(user_id, new_id("healthy")))
    with postgres.superuser() as superuser:
        return Aftermath(
            load=target.load,
            has_happened=has_happened,
            seconds_to_be_healthy=seconds,
            lost=target.load.lost(),
            balances=by_user(superuser, target.load, "select id, credits_balance from public.users"),
            sums=by_user(superuser, target.load, "select user_id, sum(amount) from public.transactions group by 1"),
            findings=audit(postgres),
        )


def seconds_until_healthy(worker: Worker, event: dict[str, Any]) -> float:
    def is_healthy() -> bool:
        with suppress(OSError, HTTPException):
            return worker.answers("/readyz", 1) and worker.deliver(event, 1).status == 200
        return False

    started = time.monotonic()
    eventually(is_healthy)
    return time.monotonic() - started


def by_user(connection: psycopg.Connection, load: Load, query: str) -> dict[str, int]:
    found = {str(user_id): int(value) for user_id, value in connection.execute(query).fetchall()}
    return {user_id: found.get(user_id, 0) for user_id in load.users}


def audit(postgres: PostgresServer) -> str:
    return CliRunner().invoke(commands, ["audit"], env={"DATABASE_URL": postgres.database.url}).output


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in FAULTS])
def aftermath(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Aftermath]:
    folder, fault = tmp_path_factory.mktemp("load"), FAULTS[request.param]
    with postgres.superuser() as superuser:
        user_id, *users = [new_user(superuser) for _ in range(6)]
    with ExitStack() as running:
        is_pooled = fault is faults.pooler_restarted
        pooler = running.enter_context(pooling(postgres.database, size=4)) if is_pooled else None
        worker = running.enter_context(working(pooler.url if pooler else postgres.database.url, folder))
        load = Load(worker.url, postgres.database.superuser_url, users, seed=len(request.param))
        yield run_under_load(postgres, fault, Target(postgres, pooler, worker, load, folder, running), user_id)


def test_fault_under_load_has_happened(aftermath: Aftermath) -> None:
    """The fault certainly happened, and deliveries were acknowledged before and after it."""
    assert aftermath.has_happened
    assert aftermath.load.successes > 80
    assert aftermath.load.lookups > 0


def test_delivery_under_load_gets_200_or_503_or_no_answer(aftermath: Aftermath) -> None:
    """A fault never causes a 500, nor a 4xx for a valid delivery."""
    allowed = {"200", "503", "RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "TimeoutError"}
    assert set(aftermath.load.answers) <= allowed | {"BrokenPipeError", "BadStatusLine", "IncompleteRead"}


def test_acknowledged_delivery_is_in_the_ledger_at_once(aftermath: Aftermath) -> None:
    """A query right after the acknowledgement finds the fact."""
    assert aftermath.load.missing == []


def test_acknowledged_delivery_is_never_lost(aftermath: Aftermath) -> None:
    """Each fact was recorded before its acknowledgement, and not by a later copy."""
    assert aftermath.lost == []


def test_balances_after_a_load_match_the_model(aftermath: Aftermath) -> None:
    """No sale or refund of the load is lost or counted twice."""
    assert aftermath.balances == expected_balances(aftermath.load.sales, aftermath.load.users)


def test_balances_after_a_load_are_the_sums_of_the_ledger(aftermath: Aftermath) -> None:
    assert aftermath.balances == aftermath.sums


def test_audit_after_a_load_finds_nothing(aftermath: Aftermath) -> None:
    """The ledger matches the recorded facts."""
    assert aftermath.findings == ""


def test_worker_after_a_fault_is_healthy_within_two_seconds(aftermath: Aftermath) -> None:
    """Healthy means ready and recording; the time counts from the end of the fault."""
    assert aftermath.seconds_to_be_healthy < SECONDS_TO_BE_HEALTHY
