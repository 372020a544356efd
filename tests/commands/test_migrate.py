"""``webhook migrate`` applies the schema as an admin that is not a superuser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from click.testing import Result

from support.commands import invoke
from support.databases import PASSWORD, WORKER, Database, Server, login, new_folder
from webhook.cli import main
from webhook.dev import postgres
from webhook.ledger import migrate as migrate_module
from webhook.ledger import schema
from webhook.ledger.migrate import MigrationError, apply_plain_postgres, connect, migrate
from webhook.ledger.schema import expected_version, sql_folder

FILES = tuple(sorted(path.name for path in sql_folder().glob("*.sql")))


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def with_query(url: str, parameters: str) -> str:
    return urlunsplit(urlsplit(url)._replace(query=parameters))


def webhook_migrate(url: str, *options: str) -> Result:
    return invoke("migrate", *options, DATABASE_URL=url, MIGRATION_DATABASE_URL="")


def test_migrate_twice_applies_every_file_once(empty_database: Database) -> None:
    assert migrate(empty_database.admin_url).applied == FILES
    again = migrate(empty_database.admin_url)
    assert (again.applied, again.version) == ((), expected_version())


def test_migrate_with_existing_accounts_adds_them_to_users(empty_database: Database) -> None:
    account = uuid4()
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute("insert into auth.users (id, email) values (%s, 'old@example.com')", [account])
    migrate(empty_database.admin_url)
    rows = query(empty_database.admin_url, "select id, email, credits_balance from public.users")
    assert rows == [(account, "old@example.com", 0)]


def test_migrate_run_concurrently_applies_every_file_once(empty_database: Database) -> None:
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(migrate, [empty_database.admin_url] * 5))
    assert sorted(name for each in done for name in each.applied) == sorted(FILES)


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=prefer",
        "sslmode=disable&gssencmode=disable&channel_binding=prefer&target_session_attrs=read-write",
        "connect_timeout=5&application_name=release&keepalives=1",
        "options=-c%20search_path%3Dnowhere%20-c%20statement_timeout%3D60000",
    ],
)
def test_migrate_accepts_every_parameter_of_psycopg(empty_database: Database, parameters: str) -> None:
    assert migrate(with_query(empty_database.admin_url, parameters)).applied == FILES


def test_migrate_with_special_characters_in_the_login_works(server: Server, empty_database: Database) -> None:
    server.connection.execute("""create role "o'dd @/:%" login superuser password 'p@/:?#% "'""")
    try:
        place = urlsplit(empty_database.admin_url).netloc.rpartition("@")[2]
        user, password = "o'dd%20%40%2F%3A%25", "p%40%2F%3A%3F%23%25%20%22"
        migrate(urlunsplit(urlsplit(empty_database.admin_url)._replace(netloc=f"{user}:{password}@{place}")))
    finally:
        with psycopg.connect(empty_database.superuser_url, autocommit=True) as connection:
            connection.execute("""drop owned by "o'dd @/:%" cascade""")
            connection.execute("""drop role "o'dd @/:%" """)


def test_migrate_ignores_dbmate_settings(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores those of the environment and those of a .env file in the working directory."""
    (tmp_path / ".env").write_text("DBMATE_MIGRATIONS_TABLE=public.elsewhere\nDATABASE_URL=postgresql://nowhere/x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBMATE_MIGRATIONS_DIR", "/nowhere")
    monkeypatch.setenv("PGOPTIONS", "")
    migrate(empty_database.admin_url)
    assert query(empty_database.admin_url, "select count(*) from billing.schema_migrations") == [(len(FILES),)]
    assert list(tmp_path.iterdir()) == [tmp_path / ".env"]


def test_migrate_history_supabase_fills_the_supabase_cli_table(empty_database: Database) -> None:
    migrate(empty_database.admin_url, history="supabase")
    rows = query(
        empty_database.admin_url, "select version, statements, name from supabase_migrations.schema_migrations"
    )
    assert sorted(rows) == [(name[:14], None, None) for name in FILES]
    assert migrate(empty_database.admin_url, history="supabase").applied == ()


def test_migrate_history_supabase_keeps_rows_of_the_supabase_cli(empty_database: Database) -> None:
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute(
            "create table supabase_migrations.schema_migrations"
            " (version text primary key, statements text[], name text)"
        )
        connection.execute(
            "insert into supabase_migrations.schema_migrations values ('20200101000000', '{x}', 'theirs')"
        )
    assert migrate(empty_database.admin_url, history="supabase").applied == FILES
    statement = "select version from supabase_migrations.schema_migrations where name = 'theirs'"
    assert query(empty_database.admin_url, statement) == [("20200101000000",)]


@pytest.mark.parametrize(("first", "then"), [("supabase", "billing"), ("billing", "supabase")])
def test_migrate_with_the_other_history_fails(empty_database: Database, first: str, then: str) -> None:
    migrate(empty_database.admin_url, history=first)
    with pytest.raises(MigrationError, match=f"not by the {then} history"):
        migrate(empty_database.admin_url, history=then)


@pytest.fixture(params=["billing", "supabase_migrations"])
def old_database(empty_database: Database, request: pytest.FixtureRequest) -> Database:
    """A database with the schema from before the first release, as listed in one of the two histories."""
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute(f"create schema {request.param}")
        connection.execute(f"create table {request.param}.schema_migrations (version text primary key)")
        connection.execute(
            f"insert into {request.param}.schema_migrations values ('20261122000001'), ('20261125000003')"
        )
    return empty_database


@pytest.mark.parametrize("history", ["billing", "supabase"])
def test_migrate_with_a_prerelease_schema_fails(old_database: Database, history: str) -> None:
    """Nothing is applied with either history, and the error suggests a new database."""
    result = webhook_migrate(old_database.admin_url, "--history", history)
    assert result.exit_code == 2
    assert result.stderr == (
        "webhook: this database has the schema of before the first release (20261125000003), which cannot be upgraded: "
        "recreate the database (rm -r .dev for the one of webhook dev)\n"
    )
    assert query(old_database.admin_url, "select to_regclass('public.users')") == [(None,)]


def test_migrate_plain_postgres_with_a_prerelease_schema_fails(bare: Database) -> None:
    """It fails before it adds any of Supabase's objects."""
    with psycopg.connect(bare.superuser_url) as connection:
        connection.execute("create schema billing create table schema_migrations (version text primary key)")
        connection.execute("insert into billing.schema_migrations values ('20261122000001')")
    with pytest.raises(MigrationError, match="before the first release"):
        migrate(bare.superuser_url, plain_postgres=True)
    assert query(bare.superuser_url, "select to_regnamespace('auth')") == [(None,)]


def test_migrate_with_another_projects_history_applies_all_files(empty_database: Database) -> None:
    """Another project's migrations can have the same dates as this schema's."""
    with psycopg.connect(empty_database.admin_url) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute("create table supabase_migrations.schema_migrations (version text primary key)")
        connection.execute("insert into supabase_migrations.schema_migrations values ('20261123090000')")
    assert migrate(empty_database.admin_url).applied == FILES


def test_migrate_with_an_unreadable_history_applies_all_files(empty_database: Database) -> None:
    """The table belongs to another role, so this schema's history is not in it."""
    with psycopg.connect(empty_database.superuser_url) as superuser:
        superuser.execute("create schema supabase_migrations create table schema_migrations (version text primary key)")
    assert migrate(empty_database.admin_url).applied == FILES


def test_migrate_with_a_broken_file_names_it_and_rolls_back(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "-- migrate:up\ncreate table public.half (a int);\nselect no_such_column;\n-- migrate:down\n"
    (tmp_path / "20260101000001_broken.sql").write_text(script)
    monkeypatch.setattr(migrate_module, "sql_folder", lambda: tmp_path)
    with pytest.raises(
        MigrationError, match=r'^20260101000001_broken\.sql: .*"no_such_column" does not exist'
    ) as raised:
        migrate(empty_database.admin_url)
    assert PASSWORD not in str(raised.value)
    assert query(empty_database.admin_url, "select to_regclass('public.half')") == [(None,)]


def test_migrate_on_plain_postgres_suggests_the_option(bare: Database) -> None:
    with pytest.raises(MigrationError, match="--plain-postgres"):
        migrate(bare.superuser_url)


def test_migrate_plain_postgres_by_a_superuser_is_idempotent(bare: Database) -> None:
    assert migrate(bare.superuser_url, plain_postgres=True).applied == FILES
    assert migrate(bare.superuser_url, plain_postgres=True).applied == ()


def test_migrate_plain_postgres_without_permission_reports_it(bare: Database) -> None:
    """The error is one line."""
    with pytest.raises(MigrationError, match=r"^--plain-postgres needs a superuser, or .*permission denied") as raised:
        migrate(login(bare.superuser_url, WORKER), plain_postgres=True)
    assert "\n" not in str(raised.value)


@pytest.fixture
def creator_url() -> Iterator[str]:
    """The URL of an admin with ``createrole`` and ``bypassrls``, on a server without other roles."""
    with new_folder() as folder, postgres.running(folder / "data", durable=False) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create role creator login createrole bypassrls password '{PASSWORD}'")
            connection.execute("create database creators owner creator")
        yield urlunsplit(urlsplit(login(url, "creator"))._replace(path="/creators"))


def test_migrate_plain_postgres_by_a_createrole_admin_works(creator_url: str) -> None:
    """Afterwards the admin cannot switch to supabase_auth_admin, the owner of auth.users."""
    assert migrate(creator_url, plain_postgres=True).applied == FILES
    assert migrate(creator_url, plain_postgres=True).applied == ()
    memberships = "select from pg_auth_members where roleid = 'supabase_auth_admin'::regrole and set_option"
    assert query(creator_url, memberships) == []


@pytest.fixture
def new_server_url() -> Iterator[str]:
    """The superuser's URL of a server without the operators' role, whose admin may not create roles."""
    with new_folder() as folder, postgres.running(folder / "data", durable=False) as url:
        postgres.prepare(url, PASSWORD)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"alter role {postgres.ADMIN} nocreaterole")
        yield url


def test_migrate_by_an_admin_without_createrole_names_the_role(new_server_url: str) -> None:
    """Once another admin has created the role, this one can migrate."""
    limited_url = login(new_server_url, postgres.ADMIN)
    with pytest.raises(MigrationError, match="webhook_admin may not create the role billing_operator: run") as raised:
        migrate(limited_url)
    assert "\n" not in str(raised.value)
    with psycopg.connect(new_server_url) as connection:
        connection.execute("create role billing_operator")
    assert migrate(limited_url).version == expected_version()


def test_plain_postgres_admin_writes_but_does_not_own_auth_users(admin: psycopg.Connection) -> None:
    admin.execute("insert into auth.users (id) values (gen_random_uuid())")
    assert admin.execute("update auth.users set email = 'new@example.com'").rowcount == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        admin.execute("alter table auth.users add column mine int")
    assert admin.execute("delete from auth.users").rowcount == 1


def test_plain_postgres_on_supabase_itself_is_rejected(server: Server, bare: Database) -> None:
    server.connection.execute("create role supabase_admin")
    try:
        with connect(bare.superuser_url) as connection, pytest.raises(MigrationError, match="is Supabase"):
            apply_plain_postgres(connection)
    finally:
        server.connection.execute("drop role supabase_admin")


@pytest.mark.parametrize(
    ("claims", "uid"),
    [
        ({"request.jwt.claims": '{"sub": "00000000-0000-0000-0000-000000000001"}'}, 1),
        ({"request.jwt.claim.sub": "00000000-0000-0000-0000-000000000002"}, 2),
        ({"request.jwt.claims": "", "request.jwt.claim.sub": ""}, None),
        ({}, None),
    ],
)
def test_auth_uid_is_the_subject_of_the_token(
    admin: psycopg.Connection, claims: dict[str, str], uid: int | None
) -> None:
    for name, value in claims.items():
        admin.execute("select set_config(%s, %s, false)", [name, value])
    [(found,)] = admin.execute("select auth.uid()").fetchall()
    assert (found and found.int) == uid


def test_command_migrate_prints_applied_files_and_the_version(empty_database: Database) -> None:
    first, again = webhook_migrate(empty_database.admin_url), webhook_migrate(empty_database.admin_url)
    assert first.output.splitlines() == [f"Applied {name}" for name in FILES] + again.output.splitlines()
    assert (again.exit_code, again.output) == (0, f"Schema {expected_version()} is up to date\n")


@pytest.mark.parametrize(
    ("url", "exit_code", "message"),
    [
        ("postgresql://admin:hunter2@127.0.0.1:1/x", 2, "cannot connect to the database"),
        ("postgresql://admin:hunter2@127.0.0.1:6543/x", 2, "DATABASE_URL is a transaction pooler"),
        ("", 2, "DATABASE_URL is not set"),
    ],
)
def test_command_migrate_that_fails_prints_the_cause_in_one_line(
    url: str, exit_code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["webhook", "migrate"])
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.delenv("MIGRATION_DATABASE_URL", raising=False)
    with pytest.raises(SystemExit) as raised:
        main()
    error = capsys.readouterr().err
    assert (raised.value.code, error.count("\n")) == (exit_code, 1)
    assert error.startswith(f"webhook: {message}")
    assert "hunter2" not in error


@pytest.mark.parametrize("step", ["_refuse_replaced_history", "has_auth_schema", "_prepare_history"])
def test_migrate_that_loses_its_connection_prints_one_line(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original = getattr(migrate_module, step)

    def lose(connection: Any, *arguments: Any) -> Any:
        with psycopg.connect(empty_database.superuser_url, autocommit=True) as superuser:
            superuser.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        return original(connection, *arguments)

    monkeypatch.setattr(migrate_module, step, lose)
    result = webhook_migrate(empty_database.admin_url)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("webhook: terminating connection")


def test_expected_version_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GET /readyz compares it with the database's."""
    version = expected_version()
    monkeypatch.setattr(schema, "sql_folder", lambda: pytest.fail("read again"))
    assert expected_version() == version


def test_expected_version_is_that_of_the_newest_file() -> None:
    assert expected_version() == FILES[-1][:14]
