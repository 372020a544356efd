"""Applying ``sql/`` to a database, with dbmate.

psycopg connects first: it understands every URL that the worker understands, fails with a clear message, and
knows in the end which server and what encryption it got. dbmate is then told exactly that, because its own
driver takes fewer parameters and insists on TLS where a URL says nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from webhook.ledger.schema import sql_folder
from webhook.settings import child_environment

# The Supabase CLI's own table; dbmate fills its first column.
# https://supabase.com/docs/reference/cli/supabase-migration
_SUPABASE_HISTORY = """
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (
        version text not null primary key,
        statements text[],
        name text
    )
"""
_HISTORY_TABLES = {
    "billing": "billing.schema_migrations",
    "supabase": "supabase_migrations.schema_migrations",
}
HISTORIES = tuple(_HISTORY_TABLES)

_SECONDS_TO_CONNECT = 10
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey")
_URL_VARIABLE = "WEBHOOK_MIGRATION_URL"
# One number for all that this module locks: "billing" in ASCII.
_LOCK = 0x62696C6C696E67


class MigrationError(Exception):
    """The schema could not be brought up to date; the message says why and holds no password."""


@dataclass(frozen=True)
class Migration:
    """What :func:`migrate` did."""

    applied: tuple[str, ...]
    """File names, oldest first; none when the database was up to date."""
    version: str
    """What the database's ``billing.schema_version()`` tells now."""


def migrate(url: str, *, history: str = "billing", plain_postgres: bool = False) -> Migration:
    """Apply the migrations that are missing; raise :class:`MigrationError`.

    ``history`` names who keeps the list of those applied, one of :data:`HISTORIES`. ``plain_postgres`` adds
    first what Supabase has and plain Postgres lacks. Safe to run in several places at once.
    """
    with connect(url) as connection:
        if plain_postgres:
            apply_plain_postgres(connection)
        elif not has_auth_schema(connection):
            raise MigrationError("this database is not Supabase's: for plain Postgres add --plain-postgres")
        _prepare_history(connection, history)
        applied = _run_dbmate(_dbmate_url(connection), history)
        return Migration(applied, _schema_version(connection))


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Return an autocommit connection; raise :class:`MigrationError` within about 10 s."""
    parameters: dict[str, Any] = {"connect_timeout": _SECONDS_TO_CONNECT, **conninfo_to_dict(url)}
    try:
        return psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise MigrationError(f"cannot connect to the database: {_one_line(error)}") from None


def apply_plain_postgres(connection: psycopg.Connection[Any], *, admin: str = "") -> None:
    """Add the roles, ``auth.users`` and ``auth.uid()`` that Supabase has; raise :class:`MigrationError`.

    ``admin`` is the role that will own the migrations' tables; by default the one that is connected.
    """
    script = (sql_folder() / "plain_postgres" / "supabase.sql").read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute("select set_config('plain_postgres.admin', %s, true)", [admin])
            connection.execute(script)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            "--plain-postgres needs a superuser, or from Postgres 16 on an admin with createrole and "
            f"bypassrls that may create schemas: {_one_line(error)}"
        ) from None
    except psycopg.Error as error:
        raise MigrationError(f"--plain-postgres: {_one_line(error)}") from None


def has_auth_schema(connection: psycopg.Connection[Any]) -> bool:
    """Whether the database has the schema ``auth``, Supabase's own or the plain one."""
    return connection.execute("select from pg_namespace where nspname = 'auth'").rowcount == 1


def history_of(connection: psycopg.Connection[Any]) -> str:
    """Return the history that the schema was applied by; "billing" for a database without it."""
    if _is_applied(connection) and not _has_rows(connection, _HISTORY_TABLES["billing"]):
        return "supabase"
    return "billing"


def _prepare_history(connection: psycopg.Connection[Any], history: str) -> None:
    """Make the Supabase CLI's table, or refuse to apply everything a second time under another history."""
    try:
        if history == "supabase":
            with connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
                connection.execute(_SUPABASE_HISTORY)
        if _is_applied(connection) and not _has_rows(connection, _HISTORY_TABLES[history]):
            raise MigrationError(
                f"the schema is there, but not by the {history} history: go on with the tool that applied it "
                "(supabase db push, webhook migrate --history supabase, or webhook migrate)"
            )
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


def _is_applied(connection: psycopg.Connection[Any]) -> bool:
    query = "select to_regprocedure('billing.schema_version()') is not null"
    return bool(connection.execute(query).fetchall()[0][0])


def _has_rows(connection: psycopg.Connection[Any], table: str) -> bool:
    if connection.execute("select to_regclass(%s)", [table]).fetchall() == [(None,)]:
        return False
    query = sql.SQL("select from {} limit 1").format(sql.Identifier(*table.split(".")))
    return connection.execute(query).rowcount == 1


def _schema_version(connection: psycopg.Connection[Any]) -> str:
    try:
        return str(connection.execute("select billing.schema_version()").fetchall()[0][0])
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


def _dbmate_url(connection: psycopg.Connection[Any]) -> str:
    """Return where ``connection`` is connected to, in the parameters that dbmate's driver knows."""
    info = connection.info
    given = info.get_parameters()
    query = {name: given[name] for name in _TLS_FILES if given.get(name, "system") != "system"}
    query |= {"host": info.host, "port": str(info.port), "sslmode": _sslmode(connection)}
    if info.options:
        query["options"] = info.options
    login = f"{quote(info.user, safe='')}:{quote(info.password, safe='')}"
    return f"postgres://{login}@/{quote(info.dbname, safe='')}?{urlencode(query, quote_via=quote)}"


def _sslmode(connection: psycopg.Connection[Any]) -> str:
    """``prefer`` and ``allow`` are settled by now: the connection has TLS, or it has none."""
    asked = connection.info.get_parameters().get("sslmode", "")
    if asked in {"verify-ca", "verify-full"}:
        return asked
    return "require" if connection.pgconn.ssl_in_use else "disable"


def _run_dbmate(url: str, history: str) -> tuple[str, ...]:
    """Return the names of the files applied; the URL travels in the environment, which others cannot read."""
    command = [
        *(str(Path(sys.executable).with_name("dbmate")), "--env", _URL_VARIABLE),
        *("--env-file", os.devnull),  # never a .env of the current folder
        *("--migrations-dir", str(sql_folder()), "--migrations-table", _HISTORY_TABLES[history]),
        *("--no-dump-schema", "--migration-lock", "migrate"),
    ]
    environment = child_environment({_URL_VARIABLE: url}, without=("DBMATE_", "PG"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise MigrationError(_why_dbmate_failed(done))
    return _names(done.stdout, "Applied: ")


def _why_dbmate_failed(done: subprocess.CompletedProcess[str]) -> str:
    message = " ".join(done.stderr.removeprefix("Error: ").split()) or f"dbmate ended with {done.returncode}"
    return ": ".join((*_names(done.stdout, "Applying: ")[-1:], message))


def _names(output: str, label: str) -> tuple[str, ...]:
    lines = (line.removeprefix(label) for line in output.splitlines() if line.startswith(label))
    return tuple(line.split()[0] for line in lines)


def _one_line(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())
