"""``webhook console``: one operator's console on this machine, and ``webhook console token``."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import NamedTuple

import psutil
import pytest

from support.commands import WEBHOOK, Command
from support.databases import Database
from webhook.console.access import SECONDS_OF_AN_ADDRESS, OnceAccess
from webhook.settings import child_environment, read_console_tokens

WAIT_TIMEOUT = 60


class Answer(NamedTuple):
    """The answer to a request: its status, headers and text."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Console:
    """A running ``webhook console``, and its output until it was ready."""

    process: subprocess.Popen[str]
    output: str

    @property
    def port(self) -> int:
        return int(re.findall(r"http://127\.0\.0\.1:(\d+)/", self.output)[0])

    @property
    def address(self) -> str:
        """The path of the single-use address."""
        return re.findall(r"(/console/open\?key=\S+)", self.output)[0]

    def get(self, path: str, cookie: str = "", **headers: str) -> Answer:
        sent = ({"Cookie": cookie} if cookie else {}) | headers
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT_TIMEOUT)) as connection:
            connection.request("GET", path, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read().decode())

    def stop(self) -> tuple[int, str, str]:
        """Return the exit code, and the output and the log after SIGTERM, which acts like Ctrl-C."""
        self.process.send_signal(signal.SIGTERM)
        output, log = self.process.communicate(timeout=WAIT_TIMEOUT)
        return self.process.returncode, output, log


@contextmanager
def running(database: Database, **variables: str) -> Iterator[Console]:
    settings = {"DATABASE_URL": database.url, "OPERATOR_DATABASE_URL": database.operator_url}
    environment = child_environment(
        {**settings, "STRIPE_LIVEMODE": "false", **variables}, without=("STRIPE_", "CONSOLE_", "OPERATOR_")
    )
    command = [WEBHOOK, "console", "--by", "ann"]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        try:
            yield Console(process, "".join(lines))
        finally:
            process.kill()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(monkeypatch)


@pytest.fixture(scope="module")
def shared(shared_database: Database) -> Iterator[Console]:
    """A console that no test opens."""
    with running(shared_database) as console:
        yield console


def test_console_listens_on_loopback_alone(shared: Console) -> None:
    listening = [each.laddr for each in psutil.Process(shared.process.pid).net_connections() if each.status == "LISTEN"]
    assert listening == [("127.0.0.1", shared.port)]


@pytest.mark.parametrize("path", ["/console", "/console/parked", "/console/nothing"])
def test_console_before_its_address_is_opened_shows_nothing(shared: Console, path: str) -> None:
    assert shared.get(path).status == 401


@pytest.mark.parametrize("key", ["", "?key=", "?key=wrong", "?key=%00", "?key=%C3%A9"])
def test_console_refuses_a_wrong_key(shared: Console, key: str) -> None:
    answer = shared.get(f"/console/open{key}")
    assert (answer.status, "Set-Cookie" in answer.headers) == (404, False)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"X-Forwarded-For": "127.0.0.1"}, {"Via": "1.1 a"}]
)
def test_console_hides_from_other_hosts_and_proxies(shared: Console, headers: dict[str, str]) -> None:
    for path in ("/", "/console", shared.address):
        assert shared.get(path, **headers).status == 404


def test_console_address_works_once(database: Database) -> None:
    with running(database) as console:
        opened = console.get(console.address)
        assert (opened.status, opened.headers["Location"]) == (303, "/console")
        cookie, *attributes = opened.headers["Set-Cookie"].split("; ")
        assert cookie.startswith(f"console-{console.port}=")
        assert {"HttpOnly", "SameSite=Lax", "Path=/console"} <= set(attributes)
        page = console.get("/console", cookie)
        assert (page.status, "<bdi>ann</bdi>" in page.text) == (200, True)
        again = console.get(console.address)
        assert (again.status, "Set-Cookie" in again.headers) == (404, False)


def test_console_prints_who_acts_and_logs_no_request(database: Database) -> None:
    with running(database) as console:
        assert re.search(r"Acts as +ann\n", console.output)
        assert re.search(r"Changes +recorded with the database login webhook_operator\n", console.output)
        console.get("/console?q=ann@example.com")
        assert console.stop() == (0, "Stopped.\n", "")


def test_console_without_an_operators_login_is_view_only(database: Database) -> None:
    with running(database, OPERATOR_DATABASE_URL="") as console:
        assert re.search(r"Changes +none, view only: .* grant billing_operator to webhook_worker\n", console.output)


def access(now: list[float], monkeypatch: pytest.MonkeyPatch) -> OnceAccess:
    monkeypatch.setattr("webhook.console.access.monotonic", lambda: now[0])
    return OnceAccess("ann", 4242)


@pytest.mark.parametrize(("seconds", "works"), [(SECONDS_OF_AN_ADDRESS - 1, True), (SECONDS_OF_AN_ADDRESS + 1, False)])
def test_address_works_for_a_minute(monkeypatch: pytest.MonkeyPatch, seconds: int, works: bool) -> None:  # noqa: FBT001
    now = [100.0]
    once = access(now, monkeypatch)
    secret = once.secret or ""
    now[0] += seconds
    assert (once.redeem(secret) is not None) is works
    assert once.redeem(secret) is None


def test_wrong_keys_do_not_use_the_address_up(monkeypatch: pytest.MonkeyPatch) -> None:
    once = access([100.0], monkeypatch)
    secret = once.secret or ""
    assert once.redeem("wrong") is None
    assert once.redeem(secret) is not None


def test_cookie_of_another_console_is_refused(shared: Console) -> None:
    """Each start makes a key of its own."""
    cookie = OnceAccess("ann", shared.port)
    login = cookie.redeem(cookie.secret or "")
    assert login is not None
    assert shared.get("/console", f"console-{shared.port}={login.sign('login', 'ann')}").status == 401


def test_root_has_to_name_a_person(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    done = command("console")
    assert (done.code, done.err.splitlines()[-1]) == (2, "Error: root names no person: give --by NAME")


def test_person_is_the_system_user_by_default(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("webhook.cli.console.system_user", lambda: "bob")
    monkeypatch.setattr("webhook.commands.console.serve", served.append)
    assert (command("console").code, served) == (0, ["bob"])


@pytest.mark.parametrize(("options", "role"), [((), "viewer"), (("--operator",), "operator")])
def test_token_prints_a_token_and_its_entry(command: Command, options: tuple[str, ...], role: str) -> None:
    done = command("console", "token", "ann", *options)
    token, entry = (line.split()[1] for line in done.out.splitlines())
    [read] = read_console_tokens({"CONSOLE_TOKENS": entry})
    assert (read.name, read.role, read.digest) == ("ann", role, hashlib.sha256(token.encode()).hexdigest())
    assert len(token) >= 43


def test_tokens_are_random(command: Command) -> None:
    assert len({command("console", "token", "ann").out for _ in range(3)}) == 3


@pytest.mark.parametrize("name", ["Ann", "a b", "a:b", "a,b", "ä", "", "a" * 33, "a\n"])
def test_token_for_a_bad_name_is_refused(command: Command, name: str) -> None:
    done = command("console", "token", name)
    assert (done.code, done.out) == (2, "")
    assert "a name has 1 to 32 characters" in done.err
