"""Fixtures of the tests of the schema: a shared database, and the connections of callers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from support.calls import CALLERS, Call, Waiting, result_of
from support.databases import Database, Server
from support.ledger_queries import WAITS, sessions
from support.roles import connected, contents, open_accounts
from support.waiting import eventually


@pytest.fixture(scope="module")
def bank(server: Server, template: str) -> Iterator[Database]:
    """A database in which Alice has bought 100 credits and Bob 50. Tests must not change it."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url) as owner:
            open_accounts(owner)
        yield database


@pytest.fixture
def generator(database: Database, owner: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The video generator's connection, as service_role."""
    assert owner
    with connected(database, "service_role") as connection:
        yield connection


@pytest.fixture
def unchanged(owner: psycopg.Connection) -> Iterator[None]:
    """Check that the test leaves the database unchanged."""
    before = contents(owner)
    yield
    assert contents(owner) == before


@pytest.fixture
def callers(database: Database, owner: psycopg.Connection) -> Iterator[list[psycopg.Connection]]:
    """Connections as service_role, one for each thread."""
    assert owner
    with ExitStack() as stack:
        yield [stack.enter_context(connected(database, "service_role")) for _ in range(CALLERS)]


@pytest.fixture
def waiting(database: Database) -> Iterator[Waiting]:
    """Return a function that starts a call in a thread and returns once it waits for a lock."""
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.superuser_url, autocommit=True) as watcher:

        def start(call: Call, connection: psycopg.Connection) -> Future[int | str]:
            called = thread.submit(result_of, call, connection)
            eventually(lambda: called.done() or sessions(watcher, WAITS) == 1)
            return called

        yield start
