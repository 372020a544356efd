"""A real Postgres server, and a separate database for each test that needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import psycopg
import pytest
import responses
import structlog
from pytest_socket import socket_allow_hosts
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from support.databases import OPERATOR, PASSWORD, WORKER, Database, Server, new_folder
from support.parallel import Files
from support.ports import free_port
from support.recorded import USER_ID
from support.roles import open_accounts
from webhook.dev import postgres
from webhook.ledger.ledger import Ledger
from webhook.ledger.migrate import migrate


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Run all tests of a file in one process, and all tests that cannot run in parallel in one process."""
    return Files(config, log)


def pytest_runtest_setup() -> None:
    """Allow network connections to this machine only."""
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def stripe_api() -> Iterator[responses.RequestsMock]:
    """A mock of Stripe's API that answers or rejects every HTTP request of this process."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """Undo what a command that runs in this process configures."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The superuser's URL: TEST_DATABASE_URL, or else an embedded Postgres."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    with new_folder() as folder, postgres.running(folder / "data", port=free_port(), durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def server(server_url: str) -> Iterator[Server]:
    """The server, with the logins of the admin, the worker and the operator."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        server = Server(server_url, connection, count(1))
        with server.changing_roles():
            for role, inherits in ((postgres.ADMIN, "inherit"), (WORKER, "noinherit"), (OPERATOR, "noinherit")):
                if not connection.execute("select from pg_roles where rolname = %s", [role]).rowcount:
                    connection.execute(f"create role {role}")
                connection.execute(f"alter role {role} login {inherits} password '{PASSWORD}'")
        yield server


@pytest.fixture(scope="session")
def empty_template(server: Server) -> Iterator[str]:
    """The name of a database with Supabase's own objects and without any migration."""
    with server.new_database("template1") as database:
        with server.changing_roles():
            postgres.prepare(database.superuser_url, PASSWORD)
            server.connection.execute(f"grant service_role to {WORKER}, {OPERATOR}")
        yield database.name


@pytest.fixture(scope="session")
def template(server: Server, empty_template: str) -> Iterator[str]:
    """The name of a database with all migrations, applied by the admin."""
    with server.new_database(empty_template) as database:
        migrate(database.admin_url)
        with server.changing_roles():
            server.connection.execute(f"grant billing_operator to {OPERATOR}")
        yield database.name


@pytest.fixture
def database(server: Server, template: str) -> Iterator[Database]:
    """A separate database for the test, with all migrations and no rows."""
    with server.new_database(template) as database:
        yield database


@pytest.fixture
def empty_database(server: Server, empty_template: str) -> Iterator[Database]:
    """A separate database for the test, without any migration."""
    with server.new_database(empty_template) as database:
        yield database


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """An autocommit connection of the schema's owner."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def ledger(database: Database) -> Iterator[Ledger]:
    """The worker's ledger on the test's database."""
    with closing(Ledger(database.url)) as ledger:
        yield ledger


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection to a ledger in which Alice has 100 credits and Bob 50."""
    open_accounts(admin)
    return admin


@pytest.fixture
def buyer(admin: psycopg.Connection) -> str:
    """The id of the user in the recorded events, after this fixture has created the account."""
    admin.execute("insert into auth.users (id, email) values (%s, 'buyer@example.com')", [USER_ID])
    return USER_ID


@pytest.fixture(scope="module")
def shared_database(server: Server, template: str) -> Iterator[Database]:
    """One database for all tests of a module; each test creates its own users."""
    with server.new_database(template) as database:
        yield database
