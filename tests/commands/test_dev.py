"""``webhook dev``, as somebody types it."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest

from support.commands import WEBHOOK
from support.databases import Database, Server, new_folder
from support.ports import free_port
from webhook.dev.errors import DevError
from webhook.dev.state import DIRECTORY, DevServer, announced, locked, running_server, stored_secret
from webhook.events.interpret import HANDLED_EVENTS
from webhook.settings import child_environment

PATIENCE = 60


@dataclass(frozen=True)
class Dev:
    """A ``webhook dev`` and what it has printed until it was ready."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    output: str

    def told(self, label: str) -> str:
        found = re.search(rf"^  {label} +(.*)$", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def get(self, path: str) -> int:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def stop(self, by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """The exit code, and what it printed while it stopped."""
        self.process.send_signal(by)
        output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output


def command(port: int, folder: Path, **variables: str) -> dict[str, object]:
    """The arguments of :mod:`subprocess` for ``webhook dev``."""
    return {
        "args": [WEBHOOK, "dev", "--port", str(port)],
        "cwd": folder,
        "env": child_environment(variables, without=("STRIPE_", "DATABASE_", "MIGRATION_", "PG")),
        "text": True,
    }


@contextmanager
def serving(folder: Path, port: int = 0, **variables: str) -> Iterator[Dev]:
    port = port or free_port()
    arguments = command(port, folder, **variables)
    with subprocess.Popen(**arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # type: ignore[call-overload]
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        try:
            assert "Ctrl-C" in lines[-1], "".join(lines)
            yield Dev(process, folder, port, "".join(lines))
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)


def failing(folder: Path, port: int = 0, **variables: str) -> tuple[int, str]:
    """The exit code, and the message."""
    arguments = command(port or free_port(), folder, **variables)
    done = subprocess.run(**arguments, capture_output=True, timeout=PATIENCE, check=False)  # type: ignore[call-overload]
    return done.returncode, done.stderr


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder to work in."""
    with new_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """One that is stopped after the last test."""
    with new_folder() as folder, serving(folder) as running:
        yield running


def test_dev_prints_its_url_once_it_is_ready(dev: Dev) -> None:
    assert dev.told("Endpoint") == f"http://127.0.0.1:{dev.port}/webhook"
    assert (dev.get("/healthz"), dev.get("/readyz")) == (200, 200)


def test_dev_prints_a_database_url_of_an_admin_that_is_no_superuser(dev: Dev) -> None:
    statement = "select rolname, rolsuper from pg_roles where rolname = current_user"
    assert query(dev.told("Database"), statement) == [("webhook_admin", False)]


def test_dev_prints_the_line_that_forwards_stripes_events(dev: Dev) -> None:
    events = ",".join(HANDLED_EVENTS)
    listen = f"npx @stripe/cli listen --events {events} --forward-to localhost:{dev.port}/webhook"
    assert dev.told("Real events") == listen


def test_dev_leaves_word_of_where_it_runs_for_nobody_else_to_read(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dev.folder)
    server = running_server()
    assert (server.url, server.pid) == (f"http://127.0.0.1:{dev.port}", dev.process.pid)
    assert (server.database_url, server.webhook_secret) == (dev.told("Database"), dev.told("Signing secret"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(".dev").iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}, modes


def test_dev_started_twice_in_a_folder_says_where_the_first_runs(dev: Dev) -> None:
    message = f"webhook: `webhook dev` already runs in this directory, at http://127.0.0.1:{dev.port}\n"
    assert failing(dev.folder) == (1, message)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_stopped_leaves_no_process_and_no_traceback(folder: Path, by: signal.Signals) -> None:
    with serving(folder) as running:
        database = psycopg.conninfo.conninfo_to_dict(running.told("Database"))
        assert running.stop(by) == (0, "Stopped.\n")
        assert is_free(running.port)
        assert is_free(int(str(database["port"])))
        assert not (folder / ".dev" / "server.json").exists()


def test_dev_started_again_has_the_same_data_url_and_secret(folder: Path) -> None:
    # Below the ports that connections are given: nothing takes the database's, the next one, in between.
    port = next(port for port in range(20000 + os.getpid() % 5000, 30000) if is_free(port) and is_free(port + 1))
    with serving(folder, port) as first:
        query(first.told("Database"), "insert into auth.users (id) values (gen_random_uuid()) returning id")
    with serving(folder, port) as second:
        assert query(second.told("Database"), "select count(*) from public.users") == [(1,)]
        assert second.told("Signing secret") == first.told("Signing secret")
        assert second.told("Database") == first.told("Database")


def test_dev_killed_and_started_again_serves(folder: Path) -> None:
    with serving(folder) as first:
        first.stop(signal.SIGKILL)
    with serving(folder, first.port) as second:
        assert second.get("/readyz") == 200


def test_dev_on_a_taken_port_says_so_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, message = failing(folder, port)
    assert (code, message.count("\n")) == (1, 1)
    assert message.startswith(f"webhook: cannot listen on port {port}: another program uses it")


@pytest.mark.parametrize("name", ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE"])
def test_dev_with_a_bad_variable_names_it_in_one_line(folder: Path, name: str) -> None:
    code, message = failing(folder, **{name: "nonsense"})
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"webhook: {name} ")


def test_dev_with_secrets_of_stripe_listen_uses_them(dev: Dev, folder: Path) -> None:
    variables = {"DATABASE_URL": dev.told("Database"), "STRIPE_WEBHOOK_SECRET": "whsec_one,whsec_two"}
    with serving(folder, **variables) as running:
        assert running.told("Signing secret") == "whsec_one, whsec_two"


@pytest.mark.parametrize("template", ["template1", "empty"])
def test_dev_with_a_database_url_brings_that_database_up_to_date(
    server: Server, empty_template: str, folder: Path, template: str
) -> None:
    with server.new_database(empty_template if template == "empty" else template) as database:
        with serving(folder, DATABASE_URL=database.superuser_url) as running:
            assert running.told("Database") == database.superuser_url
            assert running.get("/readyz") == 200
        assert not (folder / ".dev" / "postgres").exists()


def test_dev_with_a_database_that_the_supabase_cli_migrated_serves(empty_database: Database, folder: Path) -> None:
    environment = child_environment({"DATABASE_URL": empty_database.admin_url}, without=("MIGRATION_",))
    subprocess.run([WEBHOOK, "migrate", "--history", "supabase"], env=environment, check=True, capture_output=True)
    with serving(folder, DATABASE_URL=empty_database.admin_url) as running:
        assert running.get("/readyz") == 200


def test_running_server_without_one_says_what_to_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DevError, match="make dev"):
        running_server()


def test_stored_secret_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    DIRECTORY.mkdir()
    first = stored_secret("some_secret", "whsec_")
    assert (stored_secret("some_secret"), first[:6]) == (first, "whsec_")


def test_lock_in_a_folder_that_cannot_be_written_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".dev").write_text("a file, no folder")
    monkeypatch.chdir(folder)
    with pytest.raises(DevError, match="cannot write to"), locked():
        pass


def test_lock_held_by_what_a_killed_one_left_behind_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with locked() as lock:
        holder = subprocess.Popen(["/bin/sleep", "0.5"], pass_fds=[lock])
    with locked():
        assert holder.wait() == 0


def demo(folder: Path, *arguments: str) -> tuple[int, list[str], str]:
    """The exit code of ``webhook demo``, the steps of the balance that it showed, and its message."""
    environment = child_environment({}, without=("STRIPE_", "DATABASE_"))
    done = subprocess.run(
        [WEBHOOK, "demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, re.findall(r"\S+ → \S+(?= credits)", done.stdout), done.stderr


def test_demo_sells_once_what_it_delivers_three_times(dev: Dev) -> None:
    assert demo(dev.folder) == (0, ["0 → 100", "100 → 100", "100 → 100"], "")


def test_demo_run_again_sells_to_another_user(dev: Dev) -> None:
    demo(dev.folder)
    assert demo(dev.folder)[1] == ["0 → 100", "100 → 100", "100 → 100"]


def test_demo_with_a_refund_before_its_sale_ends_right(dev: Dev) -> None:
    assert demo(dev.folder, "--refund") == (0, ["0 → 0", "0 → 75", "75 → 75", "75 → 75"], "")


def test_demo_against_a_database_elsewhere_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    DIRECTORY.mkdir()
    elsewhere = DevServer("http://127.0.0.1:1", "postgresql://u@db.example.com/postgres", "whsec_1", os.getpid())
    with announced(elsewhere):
        code, steps, message = demo(folder)
    assert (code, steps, message.count("\n")) == (1, [], 1)


def test_demo_without_a_running_dev_says_what_to_type(folder: Path) -> None:
    code, _, message = demo(folder)
    assert (code, message.count("\n")) == (1, 1)
    assert "make dev" in message


def test_dev_with_the_schema_of_before_the_release_says_what_to_do(folder: Path, empty_database: Database) -> None:
    """The files of today cannot upgrade it, and the line that says so names the folder to remove."""
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute("create schema billing create table schema_migrations (version text primary key)")
        connection.execute("insert into billing.schema_migrations values ('20261122000001')")
    code, message = failing(folder, DATABASE_URL=empty_database.admin_url)
    assert (code, message.count("\n")) == (1, 1)
    assert message.endswith("recreate the database (rm -r .dev for the one of webhook dev)\n")
