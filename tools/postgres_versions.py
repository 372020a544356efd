"""`make postgres-versions`: run the SQL tests on Postgres 15, 16, 17 and 18, and print a line for each version.

15, 16 and 17 are npm packages for Linux on x64, pinned in tools/postgres. 18 is the embedded Postgres.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT

import psycopg

from webhook.dev import cluster, supervise
from webhook.dev.ports import free_port
from webhook.dev.unprivileged import readable_root, unprivileged_user

PROJECT = Path(__file__).parents[1]
NPM = PROJECT / "tools" / "postgres" / "node_modules"
VERSIONS = ("15", "16", "17", "18")
SECONDS_TO_START = 20
USER = unprivileged_user()
# Postgres 15 and 16 have no built-in locale; C is on every machine.
FORM = ("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
# -F: without fsync.
SETTINGS = ("-F", "-h", "127.0.0.1", "-k", "", "-N", "200")
SUITE = (
    "tests/sql/test_access.py",
    "tests/sql/test_privileges.py",
    "tests/sql/test_operator_actions.py",
    "tests/sql/test_adjust.py",
    "tests/sql/test_assign.py",
    "tests/commands/test_audit_operators.py",
    "tests/sql/test_lints.py",
    "tests/commands/test_audit.py",
    "tests/commands/test_audit_findings.py",
    "tests/worker/test_batches.py",
    "tests/sql/test_erase_user.py",
    "tests/sql/test_transactions.py",
    "tests/commands/test_migrate.py",
    "tests/commands/test_migrate_beside.py",
    "tests/sql/test_accounts.py",
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
    """Print a line and the failures for each version, and return whether all versions passed."""
    passed = [passes(version) for version in versions or VERSIONS]
    return all(passed)


def passes(version: str) -> bool:
    with running(programs_of(version)) as url:
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


def programs_of(version: str) -> Path:
    """Return the directory of the programs, where the user that runs Postgres can read them."""
    if version == "18":
        return cluster.programs()
    package = NPM / f"postgres-{version}"
    release = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    return readable_root(package, ("native",), f"postgres-npm-{release}") / "native" / "bin"


@contextmanager
def running(programs: Path) -> Iterator[str]:
    """Yield the superuser's URL of a new server that runs with these programs."""
    with tempfile.TemporaryDirectory() as parent, Path(parent, "log").open("wb") as log:
        folder = Path(parent)
        url = f"postgresql://postgres:{make_files(programs, folder)}@127.0.0.1:{(port := free_port())}/postgres"
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), *SETTINGS]
        environment = cluster.environment()
        server = supervise.start(command, stop_signal=SIGINT, user=USER, environment=environment, output=log)
        try:
            wait_for(url)
            yield url
        finally:
            server.stop()


def make_files(programs: Path, folder: Path) -> str:
    """Create the server's files in the folder, and return its superuser's password."""
    password = folder / "password"
    password.write_text(secrets.token_hex(16), encoding="ascii")
    if USER:
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


def wait_for(url: str) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            return psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
