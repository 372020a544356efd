"""The worker behind a real PgBouncer in transaction mode, shared with clients that change session state.

In this mode a client gets the session as the last client left it: https://www.pgbouncer.org/features.html.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from click.testing import CliRunner

from support.databases import Database
from support.ledger_queries import WAITS, amounts, held, lock_of, new_user, sessions
from support.pooler import Pooler, needs_pgbouncer, pooling
from support.postgres_server import TERMINATE
from support.waiting import eventually
from support.worker import Worker, body_of, deliver_at_once, sale, working
from webhook.cli import commands

pytestmark = needs_pgbouncer

# A trigger records the settings under which the worker's transactions run.
WITNESS = """
create table public.witness (
    payment_id text,
    backend integer default pg_backend_pid(),
    mark text default current_setting('hostile.mark', true),
    role text default current_setting('role'),
    isolation text default current_setting('transaction_isolation'),
    synchronous_commit text default current_setting('synchronous_commit'),
    statement_timeout text default current_setting('statement_timeout'),
    lock_timeout text default current_setting('lock_timeout')
);

create function public.testify() returns trigger
    language plpgsql
    security definer
as $$
begin
    insert into public.witness (payment_id) values (new.payment_id);
    return null;
end
$$;

create trigger testify
    after insert on public.transactions
    for each row
    execute function public.testify();

create schema evil;

create table evil.transactions (like public.transactions);

create table evil.users (like public.users);

create type evil.jsonb as enum ('evil');

create type evil.uuid as enum ('evil');

grant usage on schema evil to public;
"""


@pytest.fixture(scope="module")
def shared_database(shared_database: Database) -> Database:
    """The database with the witness table and its trigger."""
    with psycopg.connect(shared_database.admin_url, autocommit=True) as admin:
        admin.execute(WITNESS)
    return shared_database


@pytest.fixture(scope="module")
def only_session(shared_database: Database) -> Iterator[Pooler]:
    """A pool of one session, which the worker shares with all other clients."""
    with pooling(shared_database, size=1) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def worker(only_session: Pooler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with working(only_session.url, tmp_path_factory.mktemp("worker")) as worker:
        yield worker


@pytest.fixture
def pooler(only_session: Pooler) -> Iterator[Pooler]:
    yield only_session
    only_session.execute("discard all")


@pytest.fixture
def user_id(superuser: psycopg.Connection) -> str:
    return new_user(superuser)


@pytest.fixture
def locked(shared_database: Database, user_id: str) -> Iterator[psycopg.Connection]:
    """A connection that locks the user's row until it rolls back."""
    with held(shared_database.superuser_url, lock_of(user_id)) as connection:
        yield connection


class Hostile(NamedTuple):
    """Another client's statement, a query that shows its effect, and the value that the query returns."""

    statement: str
    control: str
    shown: object


SCHEMA_OF = "select substr(relnamespace::regnamespace::text, 1, 7) from pg_class where oid = to_regclass('{}')"
KIND_OF_TYPE = "select typtype::pg_catalog.text from pg_type where oid = to_regtype('{}')"

HOSTILE = [
    Hostile("reset role", "show role", "none"),
    Hostile("set role none", "show role", "none"),
    Hostile("set role service_role", "show role", "service_role"),
    Hostile("set search_path = evil", "show search_path", "evil"),
    Hostile("set search_path = evil, pg_catalog", "select 'evil'::jsonb", "evil"),
    Hostile("deallocate all", "select count(*) from pg_prepared_statements", 0),
    Hostile("prepare mine as select 1", "select name from pg_prepared_statements", "mine"),
    Hostile("set default_transaction_read_only = on", "show transaction_read_only", "on"),
    Hostile("set session characteristics as transaction read only", "show transaction_read_only", "on"),
    Hostile("set default_transaction_isolation = 'serializable'", "show transaction_isolation", "serializable"),
    Hostile("set default_transaction_deferrable = on", "show transaction_deferrable", "on"),
    Hostile("set synchronous_commit = off", "show synchronous_commit", "off"),
    Hostile("set plpgsql.extra_errors = 'all'", "show plpgsql.extra_errors", "all"),
    Hostile("set transform_null_equals = on", "show transform_null_equals", "on"),
    Hostile("set row_security = off", "show row_security", "off"),
    Hostile("create temp table transactions (id text)", SCHEMA_OF.format("transactions"), "pg_temp"),
    Hostile("create temp table users (id text)", SCHEMA_OF.format("users"), "pg_temp"),
    Hostile("create temp table uuid (id text)", KIND_OF_TYPE.format("uuid"), "c"),
    Hostile("create temp table text (id int)", KIND_OF_TYPE.format("text"), "c"),
    Hostile("listen x", "select pg_listening_channels()", "x"),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.statement)
def test_sale_on_a_hostile_session_is_recorded(hostile: Hostile, pooler: Pooler, worker: Worker, user_id: str) -> None:
    """Another client of the pool executed the statement on the session before."""
    pooler.execute(hostile.statement)
    assert pooler.execute(hostile.control) == [(hostile.shown,)]
    assert worker.deliver(sale(user_id, user_id)).outcome == "recorded"
    # The effect is still there, so the pooler did not reset the session for the worker.
    assert pooler.execute(hostile.control) == [(hostile.shown,)]


def test_sale_on_a_hostile_session_runs_with_its_own_settings(
    pooler: Pooler, worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    """The worker sets the role, the isolation level and synchronous_commit."""
    pooler.execute(
        "set synchronous_commit = off; set default_transaction_isolation = 'serializable'; set hostile.mark = 'there'"
    )
    worker.deliver(sale(user_id, user_id))
    query = "select mark, role, isolation, synchronous_commit from public.witness where payment_id = %s"
    assert superuser.execute(query, [f"pi_{user_id}"]).fetchall() == [("there", "service_role", "read committed", "on")]


@pytest.mark.parametrize("statement", ["set statement_timeout = '200ms'", "set lock_timeout = '200ms'"])
def test_sale_that_outlasts_another_clients_timeout_is_recorded(
    statement: str, pooler: Pooler, locked: psycopg.Connection, worker: Worker, user_id: str
) -> None:
    """The worker sets its own statement_timeout and lock_timeout."""
    pooler.execute(statement)
    with ThreadPoolExecutor(1) as sender:
        answer = sender.submit(worker.deliver, sale(user_id, user_id))
        waited_twice_as_long = f"{WAITS} and clock_timestamp() - query_start > '400 ms'"
        eventually(lambda: answer.done() or sessions(locked, waited_twice_as_long))
        locked.rollback()
    assert answer.result().outcome == "recorded"


def test_parked_payload_on_a_latin1_session_is_stored_unchanged(
    pooler: Pooler, worker: Worker, superuser: psycopg.Connection
) -> None:
    """The session also treats backslashes in string literals as escapes."""
    event = sale("nobody", "parked")
    event["data"]["object"]["metadata"]["note"] = "\\ \u0000 'é' \U0001f3ac"
    pooler.execute("set client_encoding = 'latin1'; set standard_conforming_strings = off")
    assert worker.deliver(event).outcome == "parked"
    query = "select payload::text from billing.parked_events where event_id = %s"
    assert superuser.execute(query, ["evt_parked"]).fetchall() == [(body_of(event),)]


def test_audit_on_a_hostile_session_reads_the_ledger(
    pooler: Pooler, user_id: str, shared_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores another client's temporary table, search_path and role."""
    with psycopg.connect(shared_database.superuser_url) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute("update public.users set credits_balance = 7 where id = %s", [user_id])
    pooler.execute("create temp table users (id uuid); set search_path = pg_temp, evil; set role service_role")
    monkeypatch.setenv("DATABASE_URL", pooler.url)
    result = CliRunner().invoke(commands, ["audit"])
    assert f"balance: user {user_id}: balance is not the sum of its ledger rows: expected 0, found 7" in result.stdout
    assert (result.exit_code, result.stderr) == (1, "")


def test_sale_after_the_pooler_was_restarted_is_recorded(pooler: Pooler, worker: Worker, user_id: str) -> None:
    worker.deliver(sale(user_id, f"before_{user_id}"))
    pooler.stop()
    pooler.start()
    assert worker.deliver(sale(user_id, user_id)).outcome == "recorded"


def test_sale_while_the_pooler_is_down_is_answered_503(pooler: Pooler, worker: Worker, user_id: str) -> None:
    pooler.stop()
    answer = worker.deliver(sale(user_id, user_id))
    pooler.start()
    assert answer.status == 503


def test_sale_after_the_pools_sessions_were_closed_is_recorded(
    pooler: Pooler, worker: Worker, user_id: str, superuser: psycopg.Connection
) -> None:
    worker.deliver(sale(user_id, f"before_{user_id}"))
    superuser.execute(TERMINATE)
    assert worker.deliver(sale(user_id, user_id)).outcome == "recorded"
    assert pooler.is_up()


LEFT_IN_A_LOOP = (
    "reset role",
    "set role none",
    "set search_path = evil",
    "deallocate all",
    "prepare mine as select 1",
    "set default_transaction_read_only = on",
    "set session characteristics as transaction read only",
    "set default_transaction_isolation = 'serializable'",
    "set synchronous_commit = off",
    "set statement_timeout = 1",
    "set lock_timeout = 1",
    "set standard_conforming_strings = off",
    "set client_encoding = 'latin1'",
    "create temp table transactions (id text)",
    "create temp table users (id text)",
    "listen x",
)


def leave_hostile_sessions(pooler: Pooler, first: int, until: threading.Event) -> None:
    """Execute the statements in a loop, each on the session that the pool assigns, ``until`` the event is set."""
    statements = islice(cycle(LEFT_IN_A_LOOP), first, None)
    with closing(psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None)) as client:
        while not until.is_set():
            with suppress(psycopg.Error):  # the object exists, or the session's timeout expired
                client.execute(f"{next(statements)}; set hostile.mark = 'there'")


@contextmanager
def hostile_clients(pooler: Pooler, number: int) -> Iterator[None]:
    stop = threading.Event()
    with ThreadPoolExecutor(number) as clients:
        running = [clients.submit(leave_hostile_sessions, pooler, first, stop) for first in range(number)]
        try:
            yield
        finally:
            stop.set()
    for client in running:
        client.result()


def test_sales_at_once_among_hostile_clients_are_recorded_once(
    shared_database: Database, superuser: psycopg.Connection, tmp_path: Path
) -> None:
    user_ids = [new_user(superuser) for _ in range(6)]
    sales = [sale(user_id, f"{number}_{user_id}", credits=number) for user_id in user_ids for number in range(1, 11)]
    with pooling(shared_database, size=2) as pooler, working(pooler.url, tmp_path) as worker:
        with hostile_clients(pooler, 4):
            answers = deliver_at_once(sales * 2, [worker], connections=12)
        # Redeliver as Stripe does: a leftover statement_timeout of 1 ms can expire before the worker sets its own.
        answers += deliver_at_once(sales, [worker], connections=12)
    assert Counter(answer.outcome for answer in answers)["recorded"] == 60
    assert [amounts(superuser, user_id) for user_id in user_ids] == [list(range(1, 11))] * 6
    query = "select count(*) > 10, count(distinct backend) > 1 from public.witness where mark = 'there'"
    assert superuser.execute(query).fetchall() == [(True, True)]
