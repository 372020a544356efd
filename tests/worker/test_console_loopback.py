"""The console without a token: only for a program on this machine, and only as ``webhook dev`` opens it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from flask.testing import FlaskClient

from support.console import SAME_ORIGIN
from support.databases import Database
from webhook import app as worker
from webhook.console.access import LocalAccess
from webhook.console.requests import is_local
from webhook.dev import app as dev
from webhook.dev.errors import DevError
from webhook.dev.postgres import ADMIN

PORT = 4242
VIEW = "/console/test/view"
HERE = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": f"127.0.0.1:{PORT}"}


@pytest.fixture
def local(make_console: Callable[..., FlaskClient]) -> FlaskClient:
    """A client of a console that needs no token."""
    return make_console(None, LocalAccess("ann", PORT), tokens=())


@pytest.mark.parametrize("host", ["127.0.0.1:4242", "localhost:4242", "LocalHost:4242", "[::1]:4242"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_local_console_is_open_to_this_machine(local: FlaskClient, host: str, peer: str) -> None:
    page = local.get(VIEW, environ_overrides={"REMOTE_ADDR": peer, "HTTP_HOST": host})
    assert (page.status_code, "<bdi>ann</bdi>" in page.text) == (200, True)


@pytest.mark.parametrize(
    "peer", ["10.0.0.8", "203.0.113.9", "::ffff:10.0.0.8", "fe80::1", "", "localhost", "127.0.0.1.example", "0.0.0.0"]
)
def test_local_console_hides_from_other_machines(local: FlaskClient, peer: str) -> None:
    response = local.get(VIEW, environ_overrides={**HERE, "REMOTE_ADDR": peer})
    assert (response.status_code, response.json) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4242",
        "127.0.0.1.evil.example:4242",
        "localhost.evil.example:4242",
        "localhost",
        "localhost:",
        "localhost:80",
        "localhost:42420",
        "localhost:4242:4242",
        "localhost:4242.evil.example",
        "127.0.0.2:4242",
        "127.1:4242",
        "2130706433:4242",
        "0.0.0.0:4242",
        "[::]:4242",
        "::1:4242",
        "[::ffff:127.0.0.1]:4242",
        "user@localhost:4242",
        "localhost.:4242",
        "",
    ],
)
def test_local_console_hides_from_other_hosts(local: FlaskClient, host: str) -> None:
    """A page of evil.example whose name resolves to 127.0.0.1 sends the host evil.example."""
    assert local.get(VIEW, environ_overrides={**HERE, "HTTP_HOST": host}).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Anything",
        "x-forwarded-for",
        "Via",
        "CF-Connecting-IP",
        "CF-Ray",
        "CF-Visitor",
        "X-Real-IP",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_local_console_hides_from_a_proxy(local: FlaskClient, name: str, value: str) -> None:
    assert local.get(VIEW, headers={name: value}, environ_overrides=HERE).status_code == 404


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/style.css", "/console/login", "/console/x"])
def test_every_address_keeps_the_loopback_rule(local: FlaskClient, path: str) -> None:
    forged = {**HERE, "HTTP_HOST": "evil.example:4242"}
    assert local.get(path, environ_overrides=forged).status_code == 404
    assert local.post(path, headers=SAME_ORIGIN, environ_overrides=forged).status_code in (404, 405)


def test_local_change_from_another_site_is_refused(local: FlaskClient) -> None:
    """There is no cookie that SameSite could keep back."""
    form = {"reason": "x"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://localhost:3000"}, {}):
        response = local.post("/console/test/change", data=form, headers=headers, environ_overrides=HERE)
        assert response.status_code == 403


def test_port_80_needs_no_port_in_the_host() -> None:
    sent = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"}
    assert is_local(sent, 80)
    assert not is_local(sent, 4242)


@pytest.fixture
def own_database(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The environment and files of a ``webhook dev`` with its own database; the URL of this database."""
    (tmp_path / ".dev").mkdir()
    (tmp_path / ".dev" / "database_password").write_text("only-for-tests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database.admin_url)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_1")
    monkeypatch.setenv("STRIPE_LIVEMODE", "false")
    monkeypatch.setenv("PORT", str(PORT))
    for name in ("CONSOLE_TOKENS", "OPERATOR_DATABASE_URL", "STRIPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return database.admin_url


def status(app: worker.Application, path: str = "/console") -> int:
    try:
        return app.test_client().get(path, environ_overrides=HERE).status_code
    finally:
        app.close()


@pytest.mark.usefixtures("own_database")
def test_dev_with_its_own_database_opens_the_console() -> None:
    assert status(dev.with_own_database()) == 200


@pytest.mark.usefixtures("own_database")
def test_dev_start_page_leads_to_the_console() -> None:
    with dev.with_own_database().test_client() as client:
        response = client.get("/", environ_overrides=HERE)
        assert (response.status_code, response.location) == (302, "/console")
        assert client.get("/", environ_overrides={**HERE, "HTTP_HOST": "evil.example"}).status_code == 404


@pytest.mark.usefixtures("own_database")
def test_environment_of_dev_opens_no_console_elsewhere() -> None:
    """`webhook serve` in the same directory and environment, variables of `webhook dev` included, needs a token."""
    assert status(worker.from_environment()) == 404
    assert status(dev.with_given_database()) == 404


def test_no_variable_names_the_application_of_dev() -> None:
    """gunicorn takes the application from its command line alone."""
    sources = Path(worker.__file__).parent
    naming = [path for path in sources.rglob("*.py") if "with_own_database" in path.read_text(encoding="utf-8")]
    assert {path.name for path in naming} == {"app.py", "server.py"}
    assert not [name for name in os.environ if "with_own_database" in os.environ[name]]


@pytest.mark.parametrize(
    ("change_url", "name"),
    [
        ({"hostname": "db.example.com"}, "host"),
        ({"username": "postgres"}, "user"),
        ({"password": "another"}, "password"),
    ],
    ids=["host", "user", "password"],
)
def test_dev_with_another_database_does_not_start(
    own_database: str, monkeypatch: pytest.MonkeyPatch, change_url: dict[str, str], name: str
) -> None:
    assert name
    parts = urlsplit(own_database)
    values = {"username": ADMIN, "password": "only-for-tests", "hostname": "127.0.0.1", **change_url}
    place = "{username}:{password}@{hostname}:5432".format(**values)
    monkeypatch.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=place)))
    with pytest.raises(DevError, match="not the embedded database"):
        dev.with_own_database()


@pytest.mark.usefixtures("own_database")
def test_dev_with_tokens_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_TOKENS", f"ann:operator:{'0' * 64}")
    assert status(dev.with_own_database()) == 303


@pytest.mark.usefixtures("own_database")
def test_dev_with_its_own_database_acts_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OPERATOR_DATABASE_URL of a copied .env may name a real database."""
    monkeypatch.setenv("OPERATOR_DATABASE_URL", "postgresql://operator@db.example.com/postgres")
    app = dev.with_own_database()
    assert app.console is not None
    assert app.console.settings.operator_database_url == app.console.settings.database_url
    app.close()


def test_local_change_by_this_machine_is_made(local: FlaskClient) -> None:
    form = {"reason": "x"}
    response = local.post("/console/test/change", data=form, headers=SAME_ORIGIN, environ_overrides=HERE)
    assert response.status_code == 303
