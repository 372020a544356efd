"""``webhook dev`` and ``webhook demo``, each in its own process."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.commands import WEBHOOK
from support.databases import Database, Server, new_folder
from support.dev import WAIT_TIMEOUT, Dev, failing, is_free, serving
from support.project import PROJECT
from webhook.dev.errors import DevError
from webhook.dev.state import DIRECTORY, DevServer, announced, locked, running_server, stored_secret
from webhook.settings import child_environment


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty working directory."""
    with new_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """A ``webhook dev`` that the tests of this module share."""
    with new_folder() as folder, serving(folder) as running:
        yield running


def test_dev_database_accepts_an_operators_commands(dev: Dev) -> None:
    """The printed URL is that of the owner, which `webhook dev` makes an operator."""
    url = dev.printed("Database")
    user = "11111111-0000-4000-8000-000000000001"
    query(url, f"insert into auth.users (id) values ('{user}') on conflict do nothing returning id")
    command = [WEBHOOK, "adjust", user, "5", "--reason", "a test"]
    done = subprocess.run(command, env={"DATABASE_URL": url}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "balance  0 → 5"), done.stderr


def test_dev_prints_its_url_once_it_is_ready(dev: Dev) -> None:
    assert dev.printed("Endpoint") == f"http://127.0.0.1:{dev.port}/webhook"
    assert (dev.get("/healthz"), dev.get("/readyz")) == (200, 200)


def test_dev_prints_the_database_url_of_a_nonsuperuser_admin(dev: Dev) -> None:
    statement = "select rolname, rolsuper from pg_roles where rolname = current_user"
    assert query(dev.printed("Database"), statement) == [("webhook_admin", False)]


def test_dev_names_the_option_for_stripe_events(dev: Dev) -> None:
    assert "--listen" in dev.printed("Stripe events")


def test_dev_writes_its_state_in_files_only_its_user_can_read(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dev.folder)
    server = running_server()
    assert (server.url, server.pid) == (f"http://127.0.0.1:{dev.port}", dev.process.pid)
    assert (server.database_url, server.webhook_secret) == (dev.printed("Database"), dev.printed("Signing secret"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(".dev").iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}, modes


def test_dev_started_twice_prints_the_url_of_the_first(dev: Dev) -> None:
    message = f"webhook: `webhook dev` already runs in this directory, at http://127.0.0.1:{dev.port}\n"
    assert failing(dev.folder) == (2, message)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_stopped_leaves_no_process_and_no_traceback(folder: Path, by: signal.Signals) -> None:
    with serving(folder) as running:
        database = psycopg.conninfo.conninfo_to_dict(running.printed("Database"))
        assert running.stop(by) == (0, "Stopped.\n")
        assert is_free(running.port)
        assert is_free(int(str(database["port"])))
        assert not (folder / ".dev" / "server.json").exists()


def test_dev_restarted_keeps_its_data_url_and_secret(folder: Path) -> None:
    # Below the ephemeral ports, so that no connection takes this port or the next one, the database's.
    port = next(port for port in range(20000 + os.getpid() % 5000, 30000) if is_free(port) and is_free(port + 1))
    with serving(folder, port) as first:
        query(first.printed("Database"), "insert into auth.users (id) values (gen_random_uuid()) returning id")
    with serving(folder, port) as second:
        assert query(second.printed("Database"), "select count(*) from public.users") == [(1,)]
        assert second.printed("Signing secret") == first.printed("Signing secret")
        assert second.printed("Database") == first.printed("Database")


def test_dev_restarted_after_a_kill_serves(folder: Path) -> None:
    with serving(folder) as first:
        first.stop(signal.SIGKILL)
    with serving(folder, first.port) as second:
        assert second.get("/readyz") == 200


@pytest.mark.parametrize(("level", "option"), [("", "--port"), ("1", "make dev PORT=…")], ids=["shell", "make"])
def test_dev_on_a_port_in_use_names_the_option(folder: Path, level: str, option: str) -> None:
    """Started by make, it names the variable: make takes no options."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = failing(folder, port, MAKELEVEL=level)
    cause = f"webhook: cannot listen on port {port}: another program uses it; choose another with {option}\n"
    assert done == (2, cause)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), ""),
        (("PORT=4300",), '--port "4300"'),
        (("LISTEN=1",), "--listen"),
        (("PORT=4300", "LISTEN=1"), '--port "4300" --listen'),
    ],
)
def test_make_dev_passes_its_options(arguments: tuple[str, ...], options: str) -> None:
    make = ["make", "--no-print-directory", "-n", "dev", *arguments]
    done = subprocess.run(
        make,
        cwd=PROJECT,
        env=child_environment({}, without=("PORT", "LISTEN")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert " ".join(done.stdout.splitlines()[-1].split()) == f".venv/bin/webhook dev {options}".strip()


@pytest.mark.parametrize("name", ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE"])
def test_dev_with_an_invalid_variable_names_it_in_one_line(folder: Path, name: str) -> None:
    code, message = failing(folder, **{name: "nonsense"})
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"webhook: {name} ")


def test_dev_with_secrets_of_stripe_listen_uses_them(dev: Dev, folder: Path) -> None:
    variables = {"DATABASE_URL": dev.printed("Database"), "STRIPE_WEBHOOK_SECRET": "whsec_one,whsec_two"}
    with serving(folder, **variables) as running:
        assert running.printed("Signing secret") == "whsec_one, whsec_two"


@pytest.mark.parametrize("template", ["template1", "empty"])
def test_dev_with_a_database_url_migrates_that_database(
    server: Server, empty_template: str, folder: Path, template: str
) -> None:
    with server.new_database(empty_template if template == "empty" else template) as database:
        with serving(folder, DATABASE_URL=database.superuser_url) as running:
            assert running.printed("Database") == database.superuser_url
            assert running.get("/readyz") == 200
        assert not (folder / ".dev" / "postgres").exists()


def test_dev_with_a_database_of_the_supabase_history_serves(empty_database: Database, folder: Path) -> None:
    environment = child_environment({"DATABASE_URL": empty_database.admin_url}, without=("MIGRATION_",))
    subprocess.run([WEBHOOK, "migrate", "--history", "supabase"], env=environment, check=True, capture_output=True)
    with serving(folder, DATABASE_URL=empty_database.admin_url) as running:
        assert running.get("/readyz") == 200


def test_running_server_without_dev_suggests_make_dev(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DevError, match="make dev"):
        running_server()


def test_stored_secret_is_generated_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    DIRECTORY.mkdir()
    first = stored_secret("some_secret", "whsec_")
    assert (stored_secret("some_secret"), first[:6]) == (first, "whsec_")


def test_lock_in_an_unwritable_folder_reports_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".dev").write_text("a file, not a folder")
    monkeypatch.chdir(folder)
    with pytest.raises(DevError, match="cannot write to"), locked():
        pass


def test_lock_waits_for_a_leftover_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed ``webhook dev`` can leave a process that still holds the lock."""
    monkeypatch.chdir(folder)
    with locked() as lock:
        holder = subprocess.Popen(["/bin/sleep", "0.5"], pass_fds=[lock])
    with locked():
        assert holder.wait() == 0


def demo(folder: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Return the exit code of ``webhook demo``, the balance changes that it printed, and its error message."""
    done = run_demo(folder, *arguments)
    return done.returncode, re.findall(r"\S+ → \S+(?= credits)", done.stdout), done.stderr


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment({}, without=("STRIPE_", "DATABASE_"))
    return subprocess.run(
        [WEBHOOK, "demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_TIMEOUT,
        check=False,
    )


def test_demo_delivering_a_sale_three_times_grants_it_once(dev: Dev) -> None:
    assert demo(dev.folder) == (0, ["0 → 100", "100 → 100", "100 → 100"], "")


def test_demo_run_again_uses_another_user(dev: Dev) -> None:
    demo(dev.folder)
    assert demo(dev.folder)[1] == ["0 → 100", "100 → 100", "100 → 100"]


def test_demo_with_a_refund_before_its_sale_ends_at_75_credits(dev: Dev) -> None:
    assert demo(dev.folder, "--refund") == (0, ["0 → 0", "0 → 75", "75 → 75", "75 → 75"], "")


@pytest.mark.parametrize(("options", "bought"), [((), 100), (("--refund",), 75)])
def test_demo_with_spending_captures_one_of_two_holds(dev: Dev, options: tuple[str, ...], bought: int) -> None:
    """The second hold expires. The columns are balance, held and available credits."""
    done = run_demo(dev.folder, "--spend", *options)
    numbers = re.findall(r"balance +(\d+), held +(\d+), available +(\d+)", done.stdout)
    rest = bought - 45
    assert [tuple(map(int, line)) for line in numbers] == [
        (bought, 60, bought - 60),
        (rest, 0, rest),
        (rest, 30, rest - 30),
        (rest, 0, rest),
    ], done.stderr


def test_demo_with_a_remote_database_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    DIRECTORY.mkdir()
    elsewhere = DevServer("http://127.0.0.1:1", "postgresql://u@db.example.com/postgres", "whsec_1", os.getpid())
    with announced(elsewhere):
        code, steps, message = demo(folder)
    assert (code, steps, message.count("\n")) == (2, [], 1)


def test_demo_without_a_running_dev_suggests_make_dev(folder: Path) -> None:
    code, _, message = demo(folder)
    assert (code, message.count("\n")) == (2, 1)
    assert "make dev" in message


def test_dev_with_a_prerelease_schema_suggests_a_new_database(folder: Path, empty_database: Database) -> None:
    """The migrations cannot upgrade that schema, and the message names the directory to remove."""
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute("create schema billing create table schema_migrations (version text primary key)")
        connection.execute("insert into billing.schema_migrations values ('20261122000001')")
    code, message = failing(folder, DATABASE_URL=empty_database.admin_url)
    assert (code, message.count("\n")) == (2, 1)
    assert message.endswith("recreate the database (rm -r .dev for the one of webhook dev)\n")
