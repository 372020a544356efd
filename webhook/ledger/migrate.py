"""Apply ``sql/`` to a database, with dbmate.

psycopg connects first. It accepts every URL that the worker accepts, fails with a clear message, and then knows the
server and the encryption of the connection. dbmate gets exactly these, because its own driver accepts fewer parameters
and requires TLS if a URL does not mention it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from webhook.errors import ExpectedError
from webhook.ledger.connect_errors import message_of
from webhook.ledger.queries import query
from webhook.ledger.schema import sql_folder
from webhook.settings import child_environment

_HISTORY_TABLES = {
    "billing": "billing.schema_migrations",
    "supabase": "supabase_migrations.schema_migrations",
}
HISTORIES = tuple(_HISTORY_TABLES)

# The migrations of before the first release. The files of today replace them, and cannot upgrade a database with them.
_REPLACED = frozenset(
    [f"202611220000{number:02}" for number in range(1, 12)] + [f"2026112500000{number}" for number in range(1, 4)]
)

_CHECK_NAMES = "*_check_names.sql"
_CONNECT_TIMEOUT = 10  # seconds
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey")
_URL_VARIABLE = "WEBHOOK_MIGRATION_URL"
# One lock for all that this module serialises: "billing" in ASCII.
_LOCK = 0x62696C6C696E67

Connection = psycopg.Connection[tuple[Any, ...]]


class MigrationError(ExpectedError):
    """The schema could not be brought up to date. The message gives the cause and contains no password."""


@dataclass(frozen=True)
class Migration:
    """The result of :func:`migrate`."""

    applied: tuple[str, ...]
    """File names, oldest first; none if the database was up to date."""
    version: str
    """The version that ``billing.schema_version()`` returns now."""
    copied: int
    """Rows of ``public.users`` that were added or corrected after ``auth.users``."""


def migrate(url: str, *, history: str = "billing", plain_postgres: bool = False) -> Migration:
    """Apply the missing migrations. Several processes may call it at once.

    ``history`` is one of :data:`HISTORIES`: the table that lists the applied migrations. ``plain_postgres`` first adds
    what Supabase has and plain Postgres lacks. Raises :class:`MigrationError`.
    """
    with connect(url) as connection, _errors_in_one_line():
        _refuse_replaced_history(connection)
        _refuse_taken_names(connection)
        if plain_postgres:
            apply_plain_postgres(connection)
        elif not has_auth_schema(connection):
            raise MigrationError("this database is not Supabase's: for plain Postgres add --plain-postgres")
        _prepare_history(connection, history)
        applied = _run_dbmate(_dbmate_url(connection), history)
        return Migration(applied, _schema_version(connection), _copy_accounts(connection))


def connect(url: str) -> Connection:
    """Return an autocommit connection. Raise :class:`MigrationError` within about 10 s."""
    parameters: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT, **conninfo_to_dict(url)}
    try:
        return psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise MigrationError(f"cannot connect to the database: {message_of(error)}") from None


def apply_plain_postgres(connection: Connection, *, admin: str = "") -> None:
    """Add the roles, ``auth.users`` and ``auth.uid()`` that Supabase has. Raise :class:`MigrationError`.

    ``admin`` is the role that will own the tables of the migrations; by default it is the connection's role.
    """
    script = (sql_folder() / "plain_postgres" / "supabase.sql").read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute(query("lock_migrations"), {"key": _LOCK})
            connection.execute(query("set_plain_postgres_admin"), {"admin": admin})
            connection.execute(script)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            "--plain-postgres needs a superuser, or from Postgres 16 on an admin with createrole and "
            f"bypassrls that may create schemas: {_one_line(error)}"
        ) from None
    except psycopg.Error as error:
        raise MigrationError(f"--plain-postgres: {_one_line(error)}") from None


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Raise errors of the database, such as a lost connection, as :class:`MigrationError`."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


@_errors_in_one_line()
def has_auth_schema(connection: Connection) -> bool:
    """Return whether the database has the schema ``auth``, Supabase's own or the plain one."""
    return _is_found(connection, "has_auth_schema")


@_errors_in_one_line()
def history_of(connection: Connection) -> str:
    """Return the history that the schema was applied by; ``billing`` for a database without the schema."""
    if _is_applied(connection) and not _versions(connection, "billing"):
        return "supabase"
    return "billing"


def _refuse_replaced_history(connection: Connection) -> None:
    applied: set[str] = set()
    for history in HISTORIES:
        # A table that this role may not read is no history of ours.
        with suppress(psycopg.errors.InsufficientPrivilege):
            applied |= _versions(connection, history)
    if old := applied & _REPLACED:
        raise MigrationError(
            f"this database has the schema of before the first release ({max(old)}), which cannot be upgraded: "
            "recreate the database (rm -r .dev for the one of webhook dev)"
        )


def _refuse_taken_names(connection: Connection) -> None:
    """Raise :class:`MigrationError` before the first migration if another application uses names of the schema."""
    try:
        for path in sql_folder().glob(_CHECK_NAMES):
            connection.execute(path.read_text(encoding="utf-8"))
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


def _copy_accounts(connection: Connection) -> int:
    """Return the number of rows of ``public.users`` that were added or corrected."""
    try:
        [(copied,)] = connection.execute(query("copy_accounts"))
    except psycopg.Error as error:
        raise MigrationError(f"accounts: {_one_line(error)}") from None
    return int(copied)


def _prepare_history(connection: Connection, history: str) -> None:
    """Create the Supabase CLI's table, or refuse to apply everything a second time under another history."""
    try:
        if history == "supabase":
            with connection.transaction():
                connection.execute(query("lock_migrations"), {"key": _LOCK})
                connection.execute(query("create_supabase_history"))
        if _is_applied(connection) and not _versions(connection, history):
            raise MigrationError(
                f"the schema is there, but not by the {history} history: go on with the tool that applied it "
                "(supabase db push, webhook migrate --history supabase, or webhook migrate)"
            )
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


def _is_applied(connection: Connection) -> bool:
    return _is_found(connection, "is_schema_applied")


def _versions(connection: Connection, history: str) -> set[str]:
    """Return the versions of the applied migrations, by that history."""
    table = _HISTORY_TABLES[history]
    if not _is_found(connection, "has_history", history=table):
        return set()
    statement = sql.SQL(query("applied_versions")).format(history=sql.Identifier(*table.split(".")))
    return {version for (version,) in connection.execute(statement)}


def _is_found(connection: Connection, name: str, **parameters: Any) -> bool:
    [(found,)] = connection.execute(query(name), parameters)
    return bool(found)


def _schema_version(connection: Connection) -> str:
    try:
        return str(connection.execute(query("schema_version")).fetchall()[0][0])
    except psycopg.Error as error:
        raise MigrationError(_one_line(error)) from None


def _dbmate_url(connection: Connection) -> str:
    """Return the URL of the connection's server, with the parameters that dbmate's driver knows."""
    info = connection.info
    given = info.get_parameters()
    options = {name: given[name] for name in _TLS_FILES if given.get(name, "system") != "system"}
    options |= {"host": info.host, "port": str(info.port), "sslmode": _sslmode(connection)}
    if info.options:
        options["options"] = info.options
    login = f"{quote(info.user, safe='')}:{quote(info.password, safe='')}"
    return f"postgres://{login}@/{quote(info.dbname, safe='')}?{urlencode(options, quote_via=quote)}"


def _sslmode(connection: Connection) -> str:
    """Return the mode of the open connection: instead of ``prefer`` and ``allow``, whether it has TLS."""
    given = connection.info.get_parameters().get("sslmode", "")
    if given in {"verify-ca", "verify-full"}:
        return given
    return "require" if connection.pgconn.ssl_in_use else "disable"


def _run_dbmate(url: str, history: str) -> tuple[str, ...]:
    """Return the names of the applied files. The URL is in the environment, which other users cannot read."""
    command = [
        *(str(Path(sys.executable).with_name("dbmate")), "--env", _URL_VARIABLE),
        *("--env-file", os.devnull),  # not the .env of the current folder
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
