"""The permissions of each role, tested by attack: a refused statement leaves the database unchanged."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg import errors, sql

from support.databases import WORKER, Database
from support.privileges import privileges
from support.roles import (
    ALICE,
    BOB,
    CAROL,
    assert_refused,
    balance,
    connected,
    contents,
    execute,
    sign_up,
)
from webhook.dev.postgres import ADMIN

API_ROLES = ("anon", "authenticated")
LOGINS = ("worker", "operator")
WEAK_ROLES = (*API_ROLES, *LOGINS, "billing_operator")
ROLES = (*WEAK_ROLES, "service_role", "owner")
STRONGER_ROLES = (ADMIN, "supabase_auth_admin", "authenticator", "pg_read_all_data")
OWNER_FUNCTIONS = {
    "billing.add_action(bigint,uuid,text,text,text,text,text,text,bigint,bigint)",
    "billing.changes_since(jsonb,text[])",
    "billing.check_action_texts(text,text,text)",
    "billing.copy_accounts()",
    "billing.credits_of_users(text[])",
    "billing.erase_user(uuid)",
    "billing.forget_users(uuid[])",
    "billing.known_assignment(text[],uuid,bigint,text,uuid,bigint)",
    "billing.refuse_assignment(text,billing.merged_sale,text,uuid)",
    "billing.refuse_debt(jsonb)",
    "billing.revive_claims(uuid[])",
    "billing.withdraw_assignment(text[],bigint,bigint)",
}
OPERATOR_FUNCTIONS = {
    "billing.assign(text,uuid,bigint,text,text,uuid,bigint,text,text,boolean,bigint)",
    "billing.adjust(uuid,bigint,text,text,uuid,text,text,boolean)",
    "billing.discard(text[],text,text,text)",
}
ROLE_CHANGES = ("set role {}", "set session role {}", "select set_config('role', '{}', false)")
BILLING_TABLES = (
    "sales",
    "reversals",
    "payment_links",
    "parked_events",
    "operator_actions",
    "assignments",
    "schema_migrations",
)

# PostgreSQL 18 reports "on delete restrict" as 23001, and other foreign keys as 23503.
FOREIGN_KEY_ERRORS = ("23001", "23503")

BALANCE_WRITES = {
    "update": "update public.users set credits_balance = 1000000",
    "insert": f"insert into public.users (id, credits_balance) values ('{CAROL}', 5)",
    "upsert": f"""
        insert into public.users (id, email) values ('{ALICE}', 'a@example.com')
        on conflict (id) do update set credits_balance = 5
    """,
    "upsert_new_user": f"""
        insert into public.users (id, credits_balance) values ('{ALICE}', 5)
        on conflict (id) do update set credits_balance = excluded.credits_balance
    """,
    "view": """
        create temp view mine as select * from public.users;
        update mine set credits_balance = 5
    """,
    "merge": f"""
        merge into public.users using (select '{ALICE}'::uuid as id) as given on users.id = given.id
        when matched then update set credits_balance = 5
    """,
    "merge_new_user": f"""
        merge into public.users using (select '{CAROL}'::uuid as id) as given on users.id = given.id
        when not matched then insert (id, credits_balance) values (given.id, 5)
    """,
    "cte": "with changed as (update public.users set credits_balance = 5 returning id) select * from changed",
    "copy": f"copy public.users (id, credits_balance) from stdin\n{CAROL}\t5\n",
    "trigger_name_in_comment": """
        do $$begin update public.users set credits_balance = 5 /* public.update_user_credits() */; end$$
    """,
    "trigger_function": f"""
        create temp table mine (user_id uuid, amount bigint);
        create trigger mine after insert on mine referencing new table as entries
            for each statement execute function public.update_user_credits();
        insert into mine values ('{ALICE}', 5)
    """,
}

LEDGER_CHANGES = {
    "update": "update public.transactions set amount = amount + 1",
    "update_to_same_value": "update public.transactions set event_id = event_id",
    "delete": "delete from public.transactions",
    "truncate": "truncate public.transactions",
    "truncate_cascade": "truncate public.users cascade",
    "upsert": f"""
        insert into public.transactions (user_id, amount, type, stripe_id) values ('{ALICE}', 5, 'PURCHASE', 'pi_a')
        on conflict (stripe_id) do update set amount = 5
    """,
    "merge_update": """
        merge into public.transactions using (select 'pi_a' as id) as given on stripe_id = given.id
        when matched then update set amount = 5
    """,
    "merge_delete": """
        merge into public.transactions using (select 'pi_a' as id) as given on stripe_id = given.id
        when matched then delete
    """,
    "view": "create temp view mine as select * from public.transactions; delete from mine",
}

LEDGER_INSERTS = {
    "insert": f"insert into public.transactions (user_id, amount, type) values ('{ALICE}', 5, 'PURCHASE')",
    "copy": f"copy public.transactions (user_id, amount, type) from stdin\n{ALICE}\t5\tPURCHASE\n",
    "merge": f"""
        merge into public.transactions using (select '{ALICE}'::uuid as id) as given on false
        when not matched then insert (user_id, amount, type) values (given.id, 5, 'PURCHASE')
    """,
}

OWNER_STATEMENTS = (
    "alter table public.transactions disable trigger all",
    "alter table public.users disable trigger users_update_without_credits",
    "alter table public.users disable row level security",
    "alter table public.transactions owner to current_user",
    "alter function public.update_user_credits() security invoker",
    "alter role current_user bypassrls",
    "comment on table public.users is ''",
    "create function public.mine() returns integer language sql return 1",
    "create policy everybody on public.transactions using (true)",
    "create rule quietly as on insert to public.transactions do instead nothing",
    "create schema mine",
    "create table billing.mine (id integer)",
    "create table public.mine (id integer)",
    "create temp table mine () inherits (public.transactions)",
    "create trigger mine after insert on public.users for each row execute function public.update_user_credits()",
    """
        create temp table mine (user_id uuid, amount bigint);
        create trigger mine after insert on mine referencing new table as entries
            for each statement execute function public.update_user_credits()
    """,
    "drop table public.transactions",
    "drop trigger transactions_append_only on public.transactions",
    "begin; lock table public.transactions in exclusive mode",
    "begin; lock table public.users in exclusive mode",
    "set session_replication_role = replica",
)

# Reading


@pytest.mark.parametrize("table", ["users", "transactions"])
@pytest.mark.parametrize("role", ["anon", *LOGINS, "billing_operator"])
def test_select_by_anon_or_a_login_is_refused(bank: Database, role: str, table: str) -> None:
    assert_refused(bank, role, f"select * from public.{table}")


@pytest.mark.parametrize("table", ["users", "transactions"])
def test_select_from_auth_users_through_the_api_is_refused(bank: Database, table: str) -> None:
    assert_refused(bank, "authenticated", f"select * from public.{table} join auth.users on true")


@pytest.mark.parametrize("table", BILLING_TABLES)
@pytest.mark.parametrize("role", WEAK_ROLES)
def test_select_from_billing_without_service_role_is_refused(bank: Database, role: str, table: str) -> None:
    assert_refused(bank, role, f"select * from billing.{table}")


@pytest.mark.parametrize("table", ["users", "transactions"])
def test_row_lock_through_the_api_is_refused(bank: Database, table: str) -> None:
    assert_refused(bank, "authenticated", f"select * from public.{table} for share")


def test_select_from_users_returns_only_the_callers_row(bank: Database) -> None:
    with connected(bank, "authenticated", user=ALICE) as alice:
        rows = execute(alice, "select id::text, credits_balance from public.users")
    assert rows == [(ALICE, 100)]


def test_select_from_transactions_returns_only_own_rows(bank: Database) -> None:
    with connected(bank, "authenticated", user=ALICE) as alice:
        rows = execute(alice, "select user_id::text, amount, stripe_id from public.transactions")
    assert rows == [(ALICE, 100, "pi_a")]


def test_copy_of_users_returns_only_the_callers_row(bank: Database) -> None:
    with connected(bank, "authenticated", user=BOB) as bob:
        assert execute(bob, "copy public.users (id, credits_balance) to stdout") == [(BOB, "50")]


@pytest.mark.parametrize(("table", "column"), [("users", "id"), ("transactions", "user_id")])
def test_other_users_rows_selected_by_id_are_not_found(bank: Database, table: str, column: str) -> None:
    with connected(bank, "authenticated", user=ALICE) as alice:
        assert execute(alice, f"select * from public.{table} where {column} = '{BOB}'") == []


@pytest.mark.parametrize("table", ["users", "transactions"])
@pytest.mark.parametrize("user", [None, CAROL])
def test_select_without_a_known_user_claim_returns_no_rows(bank: Database, user: str | None, table: str) -> None:
    with connected(bank, "authenticated", user=user) as stranger:
        assert execute(stranger, f"select * from public.{table}") == []


def test_where_clause_never_sees_other_users_rows(bank: Database) -> None:
    with connected(bank, "authenticated", user=ALICE) as alice:
        # Reading Bob's row would fail with a division by zero.
        rows = execute(alice, "select id::text from public.users where 1 / (credits_balance - 50) = 0")
    assert rows == [(ALICE,)]


def test_cheap_function_never_sees_other_users_rows(bank: Database) -> None:
    """Row-level security applies before the caller's function, however low its cost."""
    with connected(bank, "authenticated", user=ALICE) as alice:
        alice.execute("""
            create function pg_temp.seen(uuid) returns boolean language plpgsql cost 0.0000001
            as $$
            begin
                perform set_config('test.seen', current_setting('test.seen') || $1, false);
                return true;
            end
            $$
        """)
        alice.execute("select set_config('test.seen', '', false)")
        execute(alice, "select from public.transactions where pg_temp.seen(user_id)")
        assert execute(alice, "show test.seen") == [(ALICE,)]


@pytest.mark.parametrize("table", ["users", "transactions"])
def test_select_by_service_role_returns_all_rows(bank: Database, table: str) -> None:
    with connected(bank, "service_role") as worker:
        assert len(execute(worker, f"select * from public.{table}")) == 2


# Writing users


@pytest.mark.parametrize("way", BALANCE_WRITES)
@pytest.mark.parametrize("role", ROLES)
def test_direct_write_to_a_balance_is_refused(bank: Database, role: str, way: str) -> None:
    assert_refused(bank, role, BALANCE_WRITES[way])


def test_balance_write_through_the_owners_view_is_refused(database: Database, owner: psycopg.Connection) -> None:
    owner.execute("create view public.mine as select * from public.users")
    owner.execute("grant all on public.mine to anon")
    assert_refused(database, "anon", "update public.mine set credits_balance = 5")


def test_balance_write_by_another_tables_trigger_is_refused(database: Database, owner: psycopg.Connection) -> None:
    owner.execute("create table public.generations (cost bigint)")
    owner.execute("""
        create function public.spend() returns trigger language plpgsql
        as $$begin update public.users set credits_balance = credits_balance - new.cost; return new; end$$
    """)
    owner.execute("create trigger spend after insert on public.generations for each row execute function spend()")
    assert_refused(database, "owner", "insert into public.generations values (5)")


@pytest.mark.parametrize("column", ["id = gen_random_uuid()", "created_at = now()"])
@pytest.mark.parametrize("role", [*WEAK_ROLES, "service_role"])
def test_update_of_user_id_or_created_at_is_refused(bank: Database, role: str, column: str) -> None:
    assert_refused(bank, role, f"update public.users set {column}")


@pytest.mark.parametrize(
    "statement",
    [
        "update public.users set email = 'mine@example.com'",
        f"insert into public.users (id, email) values ('{CAROL}', 'c@example.com')",
        f"insert into public.users (id) values ('{ALICE}') on conflict do nothing",
    ],
)
@pytest.mark.parametrize("role", WEAK_ROLES)
def test_write_to_users_without_service_role_is_refused(bank: Database, role: str, statement: str) -> None:
    assert_refused(bank, role, statement)


@pytest.mark.parametrize("statement", ["delete from public.users", "truncate public.users"])
@pytest.mark.parametrize("role", [*WEAK_ROLES, "service_role"])
def test_delete_from_users_by_non_owner_is_refused(bank: Database, role: str, statement: str) -> None:
    assert_refused(bank, role, statement)


def test_user_row_inserted_by_service_role_is_returned(database: Database, owner: psycopg.Connection) -> None:
    sign_up(owner, CAROL)
    owner.execute("delete from public.users where id = %s", [CAROL])
    with connected(database, "service_role") as worker:
        statement = f"insert into public.users (id, email) values ('{CAROL}', 'c') returning email, credits_balance"
        assert execute(worker, statement) == [("c", 0)]


def test_user_row_inserted_without_an_account_is_refused(bank: Database) -> None:
    assert_refused(bank, "service_role", f"insert into public.users (id, email) values ('{CAROL}', 'c')", "23503")


@pytest.mark.usefixtures("owner")
def test_email_updated_by_service_role_is_returned(database: Database) -> None:
    with connected(database, "service_role") as worker:
        statement = f"update public.users set email = 'new' where id = '{ALICE}' returning email, credits_balance"
        assert execute(worker, statement) == [("new", 100)]


@pytest.mark.usefixtures("owner")
def test_email_upserted_by_service_role_is_returned(database: Database) -> None:
    with connected(database, "service_role") as worker:
        rows = execute(
            worker,
            f"""
            insert into public.users (id, email) values ('{ALICE}', 'new')
            on conflict (id) do update set email = excluded.email returning email, credits_balance
            """,
        )
    assert rows == [("new", 100)]


# Writing transactions


@pytest.mark.parametrize("way", LEDGER_INSERTS)
@pytest.mark.parametrize("role", WEAK_ROLES)
def test_ledger_insert_without_service_role_is_refused(bank: Database, role: str, way: str) -> None:
    assert_refused(bank, role, LEDGER_INSERTS[way])


@pytest.mark.parametrize("way", LEDGER_INSERTS)
@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_ledger_insert_by_service_role_or_owner_is_stored(
    database: Database, owner: psycopg.Connection, role: str, way: str
) -> None:
    with connected(database, role) as writer:
        execute(writer, LEDGER_INSERTS[way])
    assert balance(owner, ALICE) == 105


@pytest.mark.parametrize("way", LEDGER_CHANGES)
@pytest.mark.parametrize("role", ROLES)
def test_ledger_change_by_any_role_is_refused(bank: Database, role: str, way: str) -> None:
    assert_refused(bank, role, LEDGER_CHANGES[way])


@pytest.mark.parametrize("statement", OWNER_STATEMENTS)
@pytest.mark.parametrize("role", [*WEAK_ROLES, "service_role"])
def test_owner_statement_by_another_role_is_refused(bank: Database, role: str, statement: str) -> None:
    assert_refused(bank, role, statement)


@pytest.mark.parametrize("table", BILLING_TABLES)
@pytest.mark.parametrize("verb", ["delete from", "truncate"])
def test_delete_of_facts_by_service_role_is_refused(bank: Database, verb: str, table: str) -> None:
    assert_refused(bank, "service_role", f"{verb} billing.{table}")


@pytest.mark.parametrize("call", ["nextval('{}')", "setval('{}', 1)"])
@pytest.mark.parametrize("role", [*WEAK_ROLES, "service_role"])
def test_sequence_change_by_non_owner_is_refused(bank: Database, role: str, call: str) -> None:
    """Only the owner can use up or reset the ids of a table."""
    assert_refused(bank, role, f"select {call.format('billing.reconciliations_id_seq')}")


# Accounts


@pytest.mark.parametrize("role", ["owner", "supabase_auth_admin"])
def test_delete_of_an_account_with_history_is_refused(bank: Database, role: str) -> None:
    assert_refused(bank, role, "delete from auth.users", *FOREIGN_KEY_ERRORS)


@pytest.mark.parametrize("role", ["owner", "supabase_auth_admin"])
def test_truncate_of_accounts_with_history_is_refused(bank: Database, role: str) -> None:
    assert_refused(bank, role, "truncate auth.users cascade")


def test_delete_of_a_users_row_with_history_is_refused(bank: Database) -> None:
    assert_refused(bank, "owner", "delete from public.users", *FOREIGN_KEY_ERRORS)


@pytest.mark.parametrize("role", ["owner", "supabase_auth_admin"])
def test_delete_of_an_account_deletes_its_users_row(database: Database, owner: psycopg.Connection, role: str) -> None:
    sign_up(owner, CAROL)
    with connected(database, role) as deleter:
        assert execute(deleter, f"delete from auth.users where id = '{CAROL}' returning id::text") == [(CAROL,)]
    assert execute(owner, f"select * from public.users where id = '{CAROL}'") == []


# Functions


def _calls(owner: psycopg.Connection) -> dict[str, str]:
    """Return a call with null arguments for each function, by the function's signature."""
    return dict(
        owner.execute("""
            select
                oid::regprocedure::text,
                format(
                    'select %s.%I(%s)',
                    pronamespace::regnamespace,
                    proname,
                    (select string_agg('null::' || argument::regtype, ', ') from unnest(proargtypes) as argument)
                )
            from pg_proc
            where pronamespace::regnamespace::text in ('public', 'billing')
        """).fetchall()
    )


def _callable(attacker: psycopg.Connection, calls: dict[str, str]) -> set[str]:
    """Return the functions whose calls raise no permission error."""
    refused = set()
    for function, call in calls.items():
        try:
            attacker.execute(call)
        except errors.InsufficientPrivilege as error:
            if "permission denied" in str(error):
                refused.add(function)
        except psycopg.Error:
            pass
    return calls.keys() - refused


@pytest.mark.parametrize("role", WEAK_ROLES)
def test_function_calls_without_service_role_are_refused(
    database: Database, owner: psycopg.Connection, role: str
) -> None:
    """billing_operator can call its own functions alone."""
    calls, before = _calls(owner), contents(owner)
    with connected(database, role, user=ALICE) as attacker:
        assert _callable(attacker, calls) == (OPERATOR_FUNCTIONS if role == "billing_operator" else set())
    assert contents(owner) == before


@pytest.mark.parametrize("role", [*API_ROLES, *LOGINS])
def test_function_calls_with_usage_on_billing_are_refused(
    database: Database, owner: psycopg.Connection, role: str
) -> None:
    owner.execute("grant usage on schema billing to public")
    with connected(database, role, user=ALICE) as attacker:
        assert _callable(attacker, _calls(owner)) == set()


def test_service_role_cannot_erase_or_act_as_operator(database: Database, owner: psycopg.Connection) -> None:
    """It can call every function but those, those of the owner, and triggers."""
    calls = _calls(owner)
    triggers = execute(owner, "select oid::regprocedure::text from pg_proc where prorettype = 'trigger'::regtype")
    with connected(database, "service_role") as worker:
        refused = calls.keys() - _callable(worker, calls)
    assert refused == OWNER_FUNCTIONS | OPERATOR_FUNCTIONS | {name for (name,) in triggers if name in calls}


def test_schema_version_called_by_service_role_is_returned(bank: Database) -> None:
    with connected(bank, "service_role") as worker:
        [(version,)] = execute(worker, "select billing.schema_version()")
    assert re.fullmatch(r"\d{14}", version)


# Roles and grants


@pytest.mark.parametrize("way", ROLE_CHANGES)
@pytest.mark.parametrize("target", [*STRONGER_ROLES, "service_role", "billing_operator"])
@pytest.mark.parametrize("role", API_ROLES)
def test_role_change_by_an_api_role_is_refused(bank: Database, role: str, target: str, way: str) -> None:
    with connected(bank, role, login=role) as attacker, pytest.raises(errors.InsufficientPrivilege):
        attacker.execute(way.format(target))


@pytest.mark.parametrize("way", ROLE_CHANGES)
@pytest.mark.parametrize("target", [*STRONGER_ROLES, *API_ROLES, "billing_operator"])
@pytest.mark.parametrize("role", ["worker", "service_role"])
def test_role_change_by_the_worker_is_refused(bank: Database, role: str, target: str, way: str) -> None:
    """The worker's login can become service_role and no other role."""
    with connected(bank, role) as attacker, pytest.raises(errors.InsufficientPrivilege):
        attacker.execute(way.format(target))


@pytest.mark.parametrize("way", ROLE_CHANGES)
@pytest.mark.parametrize("target", [*STRONGER_ROLES, *API_ROLES, WORKER])
def test_role_change_by_an_operator_is_refused(bank: Database, target: str, way: str) -> None:
    """An operator's login can become service_role and billing_operator, if it was granted both."""
    with connected(bank, "billing_operator") as attacker, pytest.raises(errors.InsufficientPrivilege):
        attacker.execute(way.format(target))


@pytest.mark.parametrize("target", [ADMIN, "service_role", "billing_operator", "authenticator"])
def test_session_authorization_by_the_worker_is_refused(bank: Database, target: str) -> None:
    with psycopg.connect(bank.url) as worker, pytest.raises(errors.InsufficientPrivilege):
        worker.execute(f"set session authorization {target}")


def test_worker_after_reset_role_cannot_read_users(bank: Database) -> None:
    with psycopg.connect(bank.url, autocommit=True) as worker:
        worker.execute("set role service_role")
        worker.execute("reset role")
        with pytest.raises(errors.InsufficientPrivilege):
            worker.execute("select from public.users")


def test_worker_after_set_role_reads_as_service_role(bank: Database) -> None:
    with psycopg.connect(bank.url) as worker:
        worker.execute("set local role service_role")
        assert len(execute(worker, "select * from public.users")) == 2


def test_claim_set_by_anon_gives_no_access(bank: Database) -> None:
    assert_refused(
        bank, "anon", f"select set_config('request.jwt.claims', '{{\"sub\": \"{ALICE}\"}}', false); table public.users"
    )


@pytest.mark.parametrize("role", [*WEAK_ROLES, "service_role"])
def test_grant_by_non_owner_changes_no_privilege(bank: Database, role: str) -> None:
    before = privileges(bank)
    with connected(bank, role) as attacker:
        for table in ("public.users", "public.transactions"):
            try:
                attacker.execute(sql.SQL("grant all on {} to public").format(sql.Identifier(*table.split("."))))
            except errors.InsufficientPrivilege:
                continue
    assert privileges(bank) == before
