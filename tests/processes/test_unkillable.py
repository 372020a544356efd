"""Whatever is killed, stopped or full in a storm of deliveries: nothing is lost or twice, and it works again."""

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
from support.faults import Fault, Scene
from support.ledger_queries import new_user
from support.load import Storm, raging
from support.model import expected_balances, new_id
from support.pooler import needs_pgbouncer, pooling
from support.postgres_server import Machine
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
def machine() -> Iterator[Machine]:
    with new_folder() as folder:
        machine = Machine(folder)
        yield machine
        machine.stop()


@dataclass(frozen=True)
class Aftermath:
    """How a storm went, and what it left."""

    storm: Storm
    has_happened: bool
    seconds_to_be_healthy: float
    lost: list[str]
    balances: dict[str, int]
    sums: dict[str, int]
    findings: str


def weather(machine: Machine, fault: Fault, scene: Scene, user_id: str) -> Aftermath:
    """Let the storm rage, hit it, and see what is left of it."""
    with raging(scene.storm):
        has_happened = fault(scene)
        seconds = seconds_until_healthy(scene.worker, sale(user_id, new_id("healthy")))
    with machine.superuser() as superuser:
        return Aftermath(
            storm=scene.storm,
            has_happened=has_happened,
            seconds_to_be_healthy=seconds,
            lost=scene.storm.lost(),
            balances=by_user(superuser, scene.storm, "select id, credits_balance from public.users"),
            sums=by_user(superuser, scene.storm, "select user_id, sum(amount) from public.transactions group by 1"),
            findings=audit(machine),
        )


def seconds_until_healthy(worker: Worker, event: dict[str, Any]) -> float:
    def is_healthy() -> bool:
        with suppress(OSError, HTTPException):
            return worker.answers("/readyz", 1) and worker.deliver(event, 1).status == 200
        return False

    started = time.monotonic()
    eventually(is_healthy)
    return time.monotonic() - started


def by_user(connection: psycopg.Connection, storm: Storm, query: str) -> dict[str, int]:
    found = {str(user_id): int(value) for user_id, value in connection.execute(query).fetchall()}
    return {user_id: found.get(user_id, 0) for user_id in storm.users}


def audit(machine: Machine) -> str:
    return CliRunner().invoke(commands, ["audit"], env={"DATABASE_URL": machine.database.url}).output


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in FAULTS])
def aftermath(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Aftermath]:
    folder, fault = tmp_path_factory.mktemp("storm"), FAULTS[request.param]
    with machine.superuser() as superuser:
        user_id, *users = [new_user(superuser) for _ in range(6)]
    with ExitStack() as running:
        is_pooled = fault is faults.pooler_restarted
        pooler = running.enter_context(pooling(machine.database, size=4)) if is_pooled else None
        worker = running.enter_context(working(pooler.url if pooler else machine.database.url, folder))
        storm = Storm(worker.url, machine.database.superuser_url, users, seed=len(request.param))
        yield weather(machine, fault, Scene(machine, pooler, worker, storm, folder, running), user_id)


def test_fault_in_a_storm_has_happened(aftermath: Aftermath) -> None:
    """The fault is certain to have happened, and while there was none deliveries were acknowledged."""
    assert aftermath.has_happened
    assert aftermath.storm.successes > 80
    assert aftermath.storm.looks > 0


def test_deliveries_in_a_storm_are_answered_200_or_503_or_cut_off(aftermath: Aftermath) -> None:
    """Never a 500, nor a 4xx that would make Stripe give up on an event of its own."""
    allowed = {"200", "503", "RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "TimeoutError"}
    assert set(aftermath.storm.answers) <= allowed | {"BrokenPipeError", "BadStatusLine", "IncompleteRead"}


def test_delivery_acknowledged_in_a_storm_is_there_at_once(aftermath: Aftermath) -> None:
    """Whoever looks right after the acknowledgement finds what the delivery said."""
    assert aftermath.storm.missing == []


def test_delivery_acknowledged_in_a_storm_is_never_lost(aftermath: Aftermath) -> None:
    """What was acknowledged is there, recorded before its acknowledgement and not by some later copy."""
    assert aftermath.lost == []


def test_balances_after_a_storm_are_the_models(aftermath: Aftermath) -> None:
    """Every user has what the sales and refunds of the storm leave them: nothing is lost, nothing is twice."""
    assert aftermath.balances == expected_balances(aftermath.storm.stories, aftermath.storm.users)


def test_balances_after_a_storm_are_the_sums_of_the_ledger(aftermath: Aftermath) -> None:
    """Balance and rows agree for every user."""
    assert aftermath.balances == aftermath.sums


def test_audit_after_a_storm_finds_nothing(aftermath: Aftermath) -> None:
    """The ledger adds up, and is what the facts say."""
    assert aftermath.findings == ""


def test_worker_after_a_storms_fault_is_healthy_within_two_seconds(aftermath: Aftermath) -> None:
    """Ready, and recording: counted from when what was taken away is back."""
    assert aftermath.seconds_to_be_healthy < SECONDS_TO_BE_HEALTHY
