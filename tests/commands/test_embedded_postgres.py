"""The embedded Postgres: it keeps its data, and never outlives its starter."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.databases import new_folder
from webhook.dev import postgres, supervise
from webhook.dev.cluster import PostgresError, programs


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The data of a server that each test starts anew."""
    with new_folder() as folder:
        yield folder / "data"


def test_running_again_on_a_folder_finds_its_data(folder: Path) -> None:
    with postgres.running(folder) as url, psycopg.connect(url) as connection:
        connection.execute("create table if not exists kept ()")
    with postgres.running(folder) as url, psycopg.connect(url) as connection:
        connection.execute("select from kept")


def test_running_listens_on_loopback_alone_and_wants_a_password(folder: Path) -> None:
    with postgres.running(folder) as url:
        with psycopg.connect(url) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, password="guessed")


def test_running_where_all_but_the_server_was_killed_takes_its_place(folder: Path) -> None:
    with postgres.running(folder):
        pid = (folder / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        holder = subprocess.run(["/bin/ps", "-o", "ppid=", "-p", pid], capture_output=True, text=True, check=True)
        os.kill(int(holder.stdout), signal.SIGKILL)
        with postgres.running(folder) as url:
            psycopg.connect(url).close()


def test_running_where_even_the_server_was_killed_recovers(folder: Path) -> None:
    with postgres.running(folder):
        os.kill(int((folder / "postmaster.pid").read_text(encoding="utf-8").split()[0]), signal.SIGKILL)
        with postgres.running(folder) as url:
            psycopg.connect(url).close()


def test_running_that_cannot_start_says_why(folder: Path) -> None:
    settings = folder / "postgresql.auto.conf"
    settings.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(PostgresError, match="no_such_setting"), postgres.running(folder):
            pass
    finally:
        settings.write_text("")


def test_programs_without_the_package_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PostgresError, match="make setup"):
        programs()


def test_free_port_is_the_preferred_one_unless_it_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert postgres.free_port(taken) != taken
    assert postgres.free_port(taken) == taken


def test_leash_of_a_killed_starter_stops_its_program() -> None:
    script = (
        "import os, signal\n"
        "from webhook.dev import supervise\n"
        "supervise.start(['/bin/sleep', '60'], environment=os.environ)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Output ends once every process that may write to it has ended.
    subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=20, check=False)


def test_leash_tells_how_its_program_ended() -> None:
    held = supervise.start(["/bin/sh", "-c", "exit 7"], environment={"PATH": os.defpath})
    held.process.wait(20)
    assert held.exit_code == 7
    held.stop()
