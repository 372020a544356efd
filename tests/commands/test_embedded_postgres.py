"""The embedded Postgres keeps its data, and stops when the process that started it ends."""

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
from webhook.dev import postgres, supervise, unprivileged
from webhook.dev.cluster import programs
from webhook.dev.errors import PostgresError
from webhook.dev.ports import free_port
from webhook.dev.unprivileged import readable_root, unprivileged_user


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The data directory of a server. Each test starts the server again."""
    with new_folder() as folder:
        yield folder / "data"


def test_running_again_on_a_folder_keeps_its_data(folder: Path) -> None:
    with postgres.running(folder) as url, psycopg.connect(url) as connection:
        connection.execute("create table if not exists kept ()")
    with postgres.running(folder) as url, psycopg.connect(url) as connection:
        connection.execute("select from kept")


def test_running_listens_on_loopback_and_requires_a_password(folder: Path) -> None:
    with postgres.running(folder) as url:
        with psycopg.connect(url) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, password="guessed")


def test_running_replaces_a_server_whose_supervisor_was_killed(folder: Path) -> None:
    with postgres.running(folder):
        pid = (folder / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        holder = subprocess.run(["/bin/ps", "-o", "ppid=", "-p", pid], capture_output=True, text=True, check=True)
        os.kill(int(holder.stdout), signal.SIGKILL)
        with postgres.running(folder) as url:
            psycopg.connect(url).close()


def test_running_after_the_server_was_killed_recovers(folder: Path) -> None:
    with postgres.running(folder):
        os.kill(int((folder / "postmaster.pid").read_text(encoding="utf-8").split()[0]), signal.SIGKILL)
        with postgres.running(folder) as url:
            psycopg.connect(url).close()


def test_running_that_cannot_start_reports_the_cause(folder: Path) -> None:
    settings = folder / "postgresql.auto.conf"
    settings.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(PostgresError, match="no_such_setting"), postgres.running(folder):
            pass
    finally:
        settings.write_text("")


def test_programs_without_the_package_suggest_make_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PostgresError, match="make setup"):
        programs()


def test_free_port_is_the_preferred_one_unless_it_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


# Started by root, it runs as the user nobody.

as_root = pytest.mark.skipif(not unprivileged_user(), reason="only root starts it as another user")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory that only root can enter, such as /root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    return closed


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for files that the user nobody must reach."""
    with new_folder() as folder:
        monkeypatch.setattr(unprivileged, "HOME", folder / "home")
        yield folder / "home"


def modes(directory: Path) -> list[int]:
    return [each.stat().st_mode for each in (directory, *directory.parents)]


def succeeds_as_nobody(*command: str | Path) -> bool:
    group = supervise.group_of("nobody")
    done = subprocess.run(command, user="nobody", group=group, extra_groups=[], cwd="/", check=False)
    return done.returncode == 0


@as_root
def test_running_below_a_closed_directory_keeps_mode_and_data(closed: Path, home: Path) -> None:
    before = modes(closed)
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("create table kept ()")
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("select from kept")
    assert modes(closed) == before
    assert (closed / "data").readlink().parent == home


@as_root
def test_running_after_the_data_was_deleted_starts_with_none(closed: Path, home: Path) -> None:
    """An operator who deletes .dev deletes only a link. The old data stays, and its path was printed."""
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("create table deleted ()")
    (closed / "data").unlink()
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        assert connection.execute("select to_regclass('deleted')").fetchone() == (None,)
    assert len([each for each in home.iterdir() if each.is_dir()]) == 2


@as_root
@pytest.mark.usefixtures("home")
def test_running_in_a_moved_checkout_keeps_its_data(closed: Path) -> None:
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("create table moved ()")
    moved = closed / "moved"
    moved.mkdir()
    (closed / "data").rename(moved / "data")
    with postgres.running(moved / "data") as url, psycopg.connect(url) as connection:
        connection.execute("select from moved")


@as_root
@pytest.mark.usefixtures("home")
def test_running_in_a_copied_checkout_has_its_own_data(closed: Path) -> None:
    """Two checkouts must not start two servers on one directory."""
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("create table copied ()")
    (closed / "copy").symlink_to((closed / "data").readlink())
    with postgres.running(closed / "copy") as url, psycopg.connect(url) as connection:
        assert connection.execute("select to_regclass('copied')").fetchone() == (None,)
    with postgres.running(closed / "data") as url, psycopg.connect(url) as connection:
        connection.execute("select from copied")


@as_root
@pytest.mark.usefixtures("home")
def test_running_on_unreachable_data_reports_it(closed: Path) -> None:
    (closed / "data").mkdir()
    with pytest.raises(PostgresError, match="cannot enter"), postgres.running(closed / "data"):
        pass


@as_root
def test_programs_in_a_closed_directory_are_copied_once(closed: Path, home: Path) -> None:
    program = closed / "tree" / "bin" / "program"
    program.parent.mkdir(parents=True, mode=0o700)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    before = modes(program)
    copy = readable_root(closed, ("tree",), "program-1")
    assert (copy, modes(program)) == (home / "program-1", before)
    assert succeeds_as_nobody(copy / "tree" / "bin" / "program")
    assert not succeeds_as_nobody("/usr/bin/test", "-w", copy / "tree" / "bin" / "program")
    copied = copy.stat().st_ino
    readable_root.cache_clear()
    assert readable_root(closed, ("tree",), "program-1").stat().st_ino == copied


@as_root
@pytest.mark.usefixtures("home")
def test_programs_that_all_users_can_read_are_not_copied() -> None:
    with new_folder() as folder:
        (folder / "tree").mkdir()
        assert readable_root(folder, ("tree",), "program-1") == folder


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_copies_where_others_can_write_are_rejected(closed: Path, home: Path, mode: int) -> None:
    home.mkdir()
    home.chmod(mode)
    (closed / "tree").mkdir()
    with pytest.raises(PostgresError, match="does not belong to root alone"):
        readable_root(closed, ("tree",), "program-1")


@as_root
def test_copies_behind_a_link_are_rejected(closed: Path, home: Path) -> None:
    home.symlink_to("/var/tmp")
    (closed / "tree").mkdir()
    with pytest.raises(PostgresError, match="does not belong to root alone"):
        readable_root(closed, ("tree",), "program-1")


def test_supervised_process_stops_when_its_starter_is_killed() -> None:
    script = (
        "import os, signal\n"
        "from webhook.dev import supervise\n"
        "supervise.start(['/bin/sleep', '60'], environment=os.environ)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Output ends once every process that may write to it has ended.
    subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=20, check=False)


def test_supervised_process_reports_its_exit_code() -> None:
    held = supervise.start(["/bin/sh", "-c", "exit 7"], environment={"PATH": os.defpath})
    held.process.wait(20)
    assert held.exit_code == 7
    held.stop()
