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
        {"disk really full": faults.disk_full}
        if faults.can_mount()
        else {"disk full, as a trigger says: no file system can be mounted here": faults.disk_said_to_be_full}
    ),
}
MARKS = {
    "pooler restarted": [needs_pgbouncer],
    "master killed": [pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphans at once")],
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with new_folder() as folder:
        postgres = PostgresServer(folder)
        yield postgres
        postgres.stop()


@dataclass(frozen=True)
class Aftermath:
    """The outcome of a load with a fault in it, and what it left in the ledger."""

    load: Load
    has_happened: bool
    seconds_to_be_healthy: float
    lost: list[str]
    balances: dict[str, int]
    sums: dict[str, int]
    findings: str


def run_under_load(postgres: PostgresServer, fault: Fault, target: Target, user_id: str) -> Aftermath:
    """Deliver the load, inject the fault, and read what is left in the ledger."""
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
    """The fault is certain to have happened, and while there was none deliveries were acknowledged."""
    assert aftermath.has_happened
    assert aftermath.load.successes > 80
    assert aftermath.load.looks > 0


def test_deliveries_under_load_are_answered_200_or_503_or_cut_off(aftermath: Aftermath) -> None:
    """Never a 500, nor a 4xx that would make Stripe give up on an event of its own."""
    allowed = {"200", "503", "RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "TimeoutError"}
    assert set(aftermath.load.answers) <= allowed | {"BrokenPipeError", "BadStatusLine", "IncompleteRead"}


def test_delivery_acknowledged_under_load_is_there_at_once(aftermath: Aftermath) -> None:
    """Whoever looks right after the acknowledgement finds what the delivery said."""
    assert aftermath.load.missing == []


def test_delivery_acknowledged_under_load_is_never_lost(aftermath: Aftermath) -> None:
    """What was acknowledged is there, recorded before its acknowledgement and not by some later copy."""
    assert aftermath.lost == []


def test_balances_after_a_load_are_the_models(aftermath: Aftermath) -> None:
    """Every user has what the sales and refunds of the load leave them: nothing is lost, nothing is twice."""
    assert aftermath.balances == expected_balances(aftermath.load.sales, aftermath.load.users)


def test_balances_after_a_load_are_the_sums_of_the_ledger(aftermath: Aftermath) -> None:
    """Balance and rows agree for every user."""
    assert aftermath.balances == aftermath.sums


def test_audit_after_a_load_finds_nothing(aftermath: Aftermath) -> None:
    """The ledger adds up, and is what the facts say."""
    assert aftermath.findings == ""


def test_worker_after_a_fault_is_healthy_within_two_seconds(aftermath: Aftermath) -> None:
    """Ready, and recording: counted from when what was taken away is back."""
    assert aftermath.seconds_to_be_healthy < SECONDS_TO_BE_HEALTHY
