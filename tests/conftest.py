"""A real Postgres, and a database of its own for every test that asks for one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import responses
from pytest_socket import socket_allow_hosts

from webhook import postgres
from webhook.migrate import migrate

WORKER = "webhook_worker"
PASSWORD = "only-for-tests"


@dataclass(frozen=True)
class Database:
    """A database, and the URLs of those who use it."""

    superuser_url: str

    @property
    def name(self) -> str:
        return urlsplit(self.superuser_url).path.removeprefix("/")

    @property
    def url(self) -> str:
        """For the worker's login, which may become service_role and can do nothing else."""
        return login(self.superuser_url, WORKER)

    @property
    def admin_url(self) -> str:
        """For the owner of the schema, who is no superuser."""
        return login(self.superuser_url, postgres.ADMIN)


@dataclass(frozen=True)
class Server:
    """A Postgres server, and its superuser's connection."""

    url: str
    connection: psycopg.Connection
    numbers: Iterator[int]

    @contextmanager
    def new_database(self, template: str) -> Iterator[Database]:
        """A copy of the database ``template``, dropped at the end."""
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        self.connection.execute(f"create database {name} owner {postgres.ADMIN} template {template} strategy file_copy")
        try:
            yield Database(urlunsplit(urlsplit(self.url)._replace(path=f"/{name}")))
        finally:
            self.connection.execute(f"drop database {name} with (force)")


def login(url: str, role: str) -> str:
    """``url`` for another role."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{place}"))


def pytest_runtest_setup() -> None:
    """No test reaches anything but this machine."""
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def stripe_api() -> Iterator[responses.RequestsMock]:
    """Every HTTP request of this process is answered by this, or refused."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The superuser's URL of the embedded Postgres, or of the server that TEST_DATABASE_URL names."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with new_folder() as folder, postgres.running(folder / "data", durable=False) as url:
        yield url


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a Postgres; pytest's own would be closed, by another pytest, to the user that root lends it."""
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        yield Path(folder)


def memory_folder() -> str | None:
    """Where files are in memory and a copy of a database takes a tenth of the time, if the machine has room there."""
    folder = "/dev/shm"
    is_usable = os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > 2**30
    return folder if is_usable else None


@pytest.fixture(scope="session")
def server(server_url: str) -> Iterator[Server]:
    """The server, with the logins of the admin and the worker."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        for role, inherits in ((postgres.ADMIN, "inherit"), (WORKER, "noinherit")):
            if not connection.execute("select from pg_roles where rolname = %s", [role]).rowcount:
                connection.execute(f"create role {role}")
            connection.execute(f"alter role {role} login {inherits} password '{PASSWORD}'")
        yield Server(server_url, connection, count(1))


@pytest.fixture(scope="session")
def empty_template(server: Server) -> Iterator[str]:
    """The name of a database with what Supabase provides, and no migration applied."""
    with server.new_database("template1") as database:
        postgres.prepare(database.superuser_url, PASSWORD)
        server.connection.execute(f"grant service_role to {WORKER}")
        yield database.name


@pytest.fixture(scope="session")
def template(server: Server, empty_template: str) -> Iterator[str]:
    """The name of a database with the whole schema, applied by the admin."""
    with server.new_database(empty_template) as database:
        migrate(database.admin_url)
        yield database.name


@pytest.fixture
def database(server: Server, template: str) -> Iterator[Database]:
    """A database of the test's own with the whole schema and no rows."""
    with server.new_database(template) as database:
        yield database


@pytest.fixture
def empty_database(server: Server, empty_template: str) -> Iterator[Database]:
    """A database of the test's own to which no migration was applied."""
    with server.new_database(empty_template) as database:
        yield database


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """An autocommit connection of the schema's owner."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        yield connection
