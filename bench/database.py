"""The bench's Postgres: durable as in production, with the whole schema and a thousand users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from bench.cpu import cpu_seconds
from bench.deliveries import USERS, Deliveries
from webhook.dev import postgres
from webhook.ledger.migrate import migrate

_PASSWORD = "only-for-the-bench"  # noqa: S105
_WORKER = "bench_worker"
# A modest tuning. Nothing here makes a commit less durable.
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}


class LostSaleError(Exception):
    """A sale answered 200 is missing from the ledger or recorded twice, or a balance is wrong."""


@dataclass(frozen=True)
class Database:
    """A database of the bench, with one URL per role."""

    superuser_url: str

    @property
    def worker_url(self) -> str:
        """The URL for the worker: its login can only switch to service_role."""
        return _login(self.superuser_url, _WORKER)

    @property
    def service_role_url(self) -> str:
        """The worker's URL for sessions that are service_role from the start."""
        return urlunsplit(urlsplit(self.worker_url)._replace(query="options=-crole%3Dservice_role"))

    @property
    def owner_url(self) -> str:
        """The URL for the competitors: most programs connect as the schema's owner."""
        return _login(self.superuser_url, postgres.ADMIN)

    def cpu_seconds(self) -> float:
        """Return the processor time of the clients' sessions so far, without the background processes of Postgres."""
        with psycopg.connect(self.superuser_url) as connection:
            return cpu_seconds([pid for (pid,) in connection.execute(_SESSIONS)])

    def check(self, deliveries: Deliveries, sent: int, answered: int) -> None:
        """Raise :class:`LostSaleError` unless the ledger has the rows of the answered deliveries.

        Deliveries in flight at the end may have been recorded as well.
        """
        most = deliveries.rows[sent]
        self.check_rows(deliveries.batch, most - (sent - answered), most)

    def check_rows(self, part: str, least: int, most: int) -> None:
        """Raise :class:`LostSaleError` unless ``least`` to ``most`` rows of 100 credits have the part in their ids."""
        self.check_balances()
        with psycopg.connect(self.superuser_url) as connection:
            [count] = _row(connection, _ROWS, part)
        if not least <= count <= most:
            raise LostSaleError(f"expected {least} to {most} rows in the ledger, found {count}")

    def check_balances(self) -> None:
        """Raise :class:`LostSaleError` unless each balance is the sum of the user's rows."""
        with psycopg.connect(self.superuser_url) as connection:
            [wrong] = _row(connection, _WRONG_BALANCES, "")
        if wrong:
            raise LostSaleError(f"{wrong} users have a wrong balance")

    def give_credits(self, amount: int) -> None:
        """Give every user so many credits."""
        with psycopg.connect(self.superuser_url) as connection:
            connection.execute(_GIVE_CREDITS, [amount])

    def add_past_holds(self, user_id: str, count: int) -> None:
        """Give the user so many holds that were captured, released or have expired, a third of each."""
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            connection.execute(_ADD_PAST_HOLDS, {"user": user_id, "count": count})

    def fill(self, rows: int) -> None:
        """Insert ``rows`` sales and the matching balances."""
        with self.loading("public.transactions", "billing.sales") as connection:
            connection.execute(_FILL, {"rows": rows, "users": list(USERS)})

    @contextmanager
    def loading(self, *tables: str) -> Iterator[psycopg.Connection]:
        """Yield a connection without triggers. The indexes of these tables are empty until the end of the block."""
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica; set synchronous_commit = off")
            for table in tables:
                connection.execute(_INDEXES_OFF, {"table": table})
            yield connection
            for table in tables:
                connection.execute(f"reindex table {table}")
            connection.execute("vacuum (analyze, freeze)")
            connection.execute("checkpoint")


@dataclass(frozen=True)
class Server:
    """The server, which creates new databases."""

    superuser_url: str

    @contextmanager
    def new_database(self, name: str) -> Iterator[Database]:
        """Yield a new database with the schema and the users, dropped at the end."""
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            connection.execute(f"create database {name} template bench_template")
            yield Database(_with_name(self.superuser_url, name))
            connection.execute(f"drop database {name} with (force)")


@contextmanager
def running() -> Iterator[Server]:
    """Yield the running server."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o711)  # for the user nobody, which runs Postgres if root starts it
        folder = Path(parent) / "postgres"
        with postgres.running(folder) as url, psycopg.connect(url, autocommit=True) as connection:
            for name, value in _SETTINGS.items():
                connection.execute(f"alter system set {name} = '{value}'")
        with postgres.running(folder) as url:  # a restart: shared_buffers needs one
            _prepare(url)
            yield Server(url)


def _prepare(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create database bench_template")
        connection.execute(f"create role {_WORKER} login noinherit password '{_PASSWORD}'")
    template = _with_name(url, "bench_template")
    postgres.prepare(template, _PASSWORD)
    migrate(_login(template, postgres.ADMIN))
    with psycopg.connect(template, autocommit=True) as connection:
        connection.execute(f"grant service_role to {_WORKER}")
        connection.execute("insert into auth.users (id) select unnest(%s::uuid[])", [list(USERS)])


def _with_name(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _login(url: str, role: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{_PASSWORD}@{host}"))


def _row(connection: psycopg.Connection, statement: str, parameter: str) -> tuple[int, ...]:
    [row] = connection.execute(statement, [parameter] if parameter else None)
    return row


_SESSIONS = """
select pid
from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
"""

_ROWS = """
select count(*)
from public.transactions
where position(%s in stripe_id) > 0 and abs(amount) = 100
"""

_GIVE_CREDITS = """
insert into public.transactions (user_id, amount, type)
select id, %s, 'REFUND'
from public.users
"""

_WRONG_BALANCES = """
select count(*)
from public.users
left join (
    select
        user_id,
        sum(amount) as amount
    from public.transactions
    group by user_id
) as ledger on ledger.user_id = users.id
where users.credits_balance <> coalesce(ledger.amount, 0)
"""

# Only a superuser may do this. Inserts skip an index that is not ready, until reindex rebuilds it.
_INDEXES_OFF = """
update pg_index set indisready = false
where indrelid = %(table)s::regclass
"""

_FILL = """
with numbers as (
    select
        'pi_2' || substr(md5(number::text), 1, 8) || lpad(number::text, 15, '0') as payment_id,
        (%(users)s::uuid[])[1 + number %% 1000] as user_id
    from generate_series(1, %(rows)s) as number
), facts as (
    insert into billing.sales (payment_id, version, user_id, credits, money_amount, currency, paid)
    select payment_id, 1, user_id, 100, 1000, 'usd', true
    from numbers
), ledger as (
    insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
    select user_id, 100, 'PURCHASE', payment_id, payment_id, 1000, 'usd', replace(payment_id, 'pi_', 'evt_')
    from numbers
)
update public.users
set credits_balance = credits_balance + added.amount
from (
    select
        user_id,
        100 * count(*) as amount
    from numbers
    group by user_id
) as added
where users.id = added.user_id
"""

_ADD_PAST_HOLDS = """
insert into public.generation_holds (id, user_id, amount, expires_at, captured_at, released_at)
select
    gen_random_uuid(),
    %(user)s,
    1,
    now() - number * interval '1 minute',
    case number %% 3 when 1 then now() end,
    case number %% 3 when 2 then now() end
from generate_series(1, %(count)s) as number
"""
