"""Faults to inject under load. Each function returns once its fault is over."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from support.load import Load
from support.pooler import Pooler
from support.postgres_server import TERMINATE, PostgresServer
from support.waiting import eventually
from support.worker import Worker, working
from webhook.dev.cluster import unprivileged_user


@dataclass
class Target:
    """A load, and everything that a fault can act on."""

    postgres: PostgresServer
    pooler: Pooler | None
    worker: Worker
    load: Load
    folder: Path
    running: ExitStack
    """Programs that run until the load is over."""

    def wait_for_failures(self) -> None:
        """Wait until deliveries fail because of the fault."""
        failures = self.load.failures
        eventually(lambda: self.load.failures > failures + 1)


Fault = Callable[[Target], bool]
"""Returns whether the fault certainly happened."""


def workers_killed(target: Target) -> bool:
    """Send SIGKILL to four workers, to each one once the last one is replaced."""
    killed = set()
    for _ in range(4):
        victim, *_ = set(target.worker.master.children()) - killed
        victim.kill()
        killed.add(victim)
        eventually(lambda: len(set(target.worker.master.children()) - killed) == 2)
    return len(killed) == 4


def master_killed(target: Target) -> bool:
    """Send SIGKILL to the master, and start it again on its port. Its orphans may still be running."""
    orphans = target.worker.master.children()
    target.worker.master.kill()
    port = urlsplit(target.worker.url).port or 0
    target.worker = target.running.enter_context(working(target.postgres.database.url, target.folder, port=port))
    _, alive = psutil.wait_procs(orphans, timeout=5)
    return len(orphans) == 2 and not alive


def connections_terminated(target: Target) -> bool:
    """Terminate all connections of the worker, five times."""
    with target.postgres.superuser() as superuser:
        for _ in range(5):
            eventually(lambda: superuser.execute(TERMINATE).rowcount)
    return True


def server_crashed(target: Target) -> bool:
    first = target.postgres.postmaster
    target.postgres.stop_immediately()
    target.wait_for_failures()
    target.postgres.start()
    return not first.is_running()


def server_hangs(target: Target) -> bool:
    with target.postgres.hanging():
        target.wait_for_failures()
        successes = target.load.successes
        time.sleep(0.5)  # no delivery may succeed in this time
        return target.load.successes == successes


def server_demoted(target: Target) -> bool:
    """As after a failover: the server accepts reads and rejects writes, and is then promoted."""
    with target.postgres.demoted():
        target.wait_for_failures()
        with target.postgres.superuser() as superuser:
            return superuser.execute("select pg_is_in_recovery()").fetchall() == [(True,)]


def pooler_restarted(target: Target) -> bool:
    assert target.pooler
    first = target.pooler.process
    target.pooler.stop()
    target.wait_for_failures()
    target.pooler.start()
    return first.exit_code is not None


@contextmanager
def small_disk() -> Iterator[Path]:
    """Yield an 8 MiB file system of Postgres's user; CalledProcessError if mounts are not allowed."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"size=8m,mode=700,uid={unprivileged_user()}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@cache
def can_mount() -> bool:
    if os.geteuid() == 0:
        with suppress(OSError, subprocess.CalledProcessError), small_disk():
            return True
    return False


def disk_full(target: Target) -> bool:
    """Fill the file system of the ledger's table, so that it has no room for another page, then free it."""
    with small_disk() as disk:
        target.postgres.execute(
            f"create tablespace small location '{disk}'", "alter table public.transactions set tablespace small"
        )
        fill(disk / "filling")
        target.wait_for_failures()
        (disk / "filling").unlink()
        reason = "No space left on device" in target.postgres.log
        target.postgres.execute("alter table public.transactions set tablespace pg_default", "drop tablespace small")
    return reason


def fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as filling:
        while True:
            filling.write(bytes(4096))


RAISE = """
create function public.disk_full() returns trigger language plpgsql as $$
begin
    raise exception 'could not extend file' using errcode = 'disk_full';
end
$$
"""


def disk_full_simulated(target: Target) -> bool:
    """A trigger raises the error of a full disk, for machines where mounts are not allowed."""
    trigger = "create trigger disk_full before insert on public.transactions execute function public.disk_full()"
    target.postgres.execute(RAISE, trigger)
    target.wait_for_failures()
    target.postgres.execute("drop function public.disk_full() cascade")
    return "could not extend file" in target.postgres.log
