"""`make postgres-versions`: the tests that are about SQL, on each Postgres from 15 to 18.

15, 16 and 17 are npm's, pinned in src/postgres, for Linux on x64; 18 is the embedded one. Prints a line for each.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT

import psycopg

from support.databases import new_folder
from support.worker import eventually
from webhook.dev import cluster, supervise
from webhook.dev.postgres import free_port

PROJECT = Path(__file__).parents[1]
NPM = PROJECT / "tools" / "postgres" / "node_modules"
PROGRAMS = {
    "15": NPM / "postgres-15" / "native" / "bin",
    "16": NPM / "postgres-16" / "native" / "bin",
    "17": NPM / "postgres-17" / "native" / "bin",
    "18": cluster.programs(),
}
USER = cluster.unprivileged_user()
# Postgres 15 and 16 have no locale of their own; this one is on every machine.
FORM = ("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
# fsync is off: nobody will miss these files.
SETTINGS = ("-F", "-h", "127.0.0.1", "-k", "", "-N", "200")
SUITE = (
    "tests/sql/test_access.py",
    "tests/commands/test_audit.py",
    "tests/worker/test_batches.py",
    "tests/sql/test_erase_user.py",
    "tests/sql/test_transactions.py",
    "tests/commands/test_migrate.py",
    "tests/sql/test_realtime.py",
    "tests/sql/test_settlement.py",
    "tests/docs/test_settlement_examples.py",
    "tests/sql/test_shadowing.py",
    "tests/sql/test_spending.py",
    "tests/sql/test_spending_access.py",
    "tests/docs/test_spending_docs.py",
    "tests/sql/test_spending_races.py",
    "tests/sql/test_upgrades.py",
)


def main(versions: list[str]) -> bool:
    """Print a line for each, and what failed, and return whether nothing did."""
    passed = [passes(version) for version in versions or PROGRAMS]
    return all(passed)


def passes(version: str) -> bool:
    with running(PROGRAMS[version]) as url:
        with psycopg.connect(url) as connection:
            server = connection.info.parameter_status("server_version")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--no-header", *SUITE],
            cwd=PROJECT,
            env=os.environ | {"TEST_DATABASE_URL": url},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    *failures, summary = done.stdout.splitlines()
    if done.returncode:
        print(*failures, sep="\n")
    print(f"Postgres {server}: {summary}", flush=True)
    return done.returncode == 0


@contextmanager
def running(programs: Path) -> Iterator[str]:
    """The superuser's URL of a new server that these programs make and run."""
    with new_folder() as folder, (folder / "log").open("wb") as log:
        url = f"postgresql://postgres:{make_files(programs, folder)}@127.0.0.1:{(port := free_port())}/postgres"
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), *SETTINGS]
        environment = cluster.environment()
        server = supervise.start(command, stop_signal=SIGINT, user=USER, environment=environment, output=log)
        try:
            eventually(lambda: answers(url))
            yield url
        finally:
            server.stop()


def make_files(programs: Path, folder: Path) -> str:
    """Make the server's files in the folder, and return its superuser's password."""
    password = folder / "password"
    password.write_text(secrets.token_hex(16), encoding="ascii")
    if USER:
        cluster.let_everyone_pass(programs)
        cluster.let_everyone_read(programs.parent)
        for each in (folder, password):
            shutil.chown(each, USER)
    subprocess.run(
        [programs / "initdb", "--pgdata", folder / "data", "--pwfile", password, *FORM],
        env=cluster.environment(),
        cwd="/",
        stdout=subprocess.DEVNULL,
        user=USER or None,
        group=supervise.group_of(USER),
        extra_groups=[] if USER else None,
        check=True,
    )
    return password.read_text(encoding="ascii")


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
