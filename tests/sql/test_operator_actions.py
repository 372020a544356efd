"""billing.operator_actions: append-only for every role, written by the operators' functions alone."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.databases import Database, Server
from support.generations import refused
from support.operators import MISSING_TEXT, TEXT_TOO_LONG, actions, adjust, discard
from support.roles import ALICE, BOB, CAROL, add, assert_refused, balance, connected, execute, record, sale, sign_up

EVERY_ROLE = ("anon", "authenticated", "worker", "operator", "billing_operator", "service_role", "owner")
CHANGES = {
    "update": "update billing.operator_actions set by = 'bob'",
    "update_to_same_value": "update billing.operator_actions set by = by",
    "blank": "update billing.operator_actions set reason = null",
    "delete": "delete from billing.operator_actions",
    "truncate": "truncate billing.operator_actions",
    "upsert": """
        insert into billing.operator_actions (number, id, action, by, channel, login) overriding system value
        values (1, gen_random_uuid(), 'adjust', 'bob', 'cli', 'me')
        on conflict (number) do update set by = 'bob'
    """,
    "merge": """
        merge into billing.operator_actions using (select 1 as first) as given on number = given.first
        when matched then delete
    """,
    "view": "create temp view mine as select * from billing.operator_actions; delete from mine",
    "cte": "with gone as (delete from billing.operator_actions returning 1) select * from gone",
}
INSERTS = (
    """
    insert into billing.operator_actions (id, action, by, channel, login)
    values (gen_random_uuid(), 'adjust', 'bob', 'cli', 'me')
    """,
    f"insert into billing.assignments (number, payment_id, user_id) values (1, 'pi_1', '{ALICE}')",
)
OWNER_ACTS = (
    "alter table billing.operator_actions disable trigger all",
    "drop trigger operator_actions_append_only on billing.operator_actions",
    "grant billing_operator to service_role",
    "alter function billing.adjust(uuid, bigint, text, text, uuid, text, text, boolean) owner to current_user",
    "create or replace function billing.add_action() returns void language sql as ''",
    "alter function billing.discard(text[], text, text, text) security invoker",
    "alter role billing_operator login",
    "select nextval('billing.operator_actions_number_seq')",
)


@pytest.fixture(scope="module")
def acted(server: Server, template: str) -> Iterator[Database]:
    """A database in which Alice has 100 credits, 5 of them from an operator. Tests must not change it."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url, autocommit=True) as owner:
            sign_up(owner, ALICE)
            add(owner, ALICE, 95)
        with connected(database, "billing_operator") as operator:
            adjust(operator, ALICE, 5)
        yield database


# Attacks


@pytest.mark.parametrize("way", CHANGES)
@pytest.mark.parametrize("role", EVERY_ROLE)
def test_change_of_actions_by_any_role_is_refused(acted: Database, role: str, way: str) -> None:
    assert_refused(acted, role, CHANGES[way])


@pytest.mark.parametrize("statement", [*INSERTS, "update billing.assignments set withdrawn_by = null"])
@pytest.mark.parametrize("role", EVERY_ROLE[:-1])
def test_direct_write_of_an_action_is_refused(acted: Database, role: str, statement: str) -> None:
    """An operator's word about a sale comes through the function alone, with an action beside it."""
    assert_refused(acted, role, statement)


@pytest.mark.parametrize("statement", OWNER_ACTS)
@pytest.mark.parametrize("role", EVERY_ROLE[:-1])
def test_owners_statement_about_actions_is_refused(acted: Database, role: str, statement: str) -> None:
    assert_refused(acted, role, statement)


@pytest.mark.parametrize("role", [role for role in EVERY_ROLE if role not in ("billing_operator", "owner")])
@pytest.mark.parametrize(
    "call",
    [
        f"select billing.adjust('{ALICE}', 5, 'mine', 'me', gen_random_uuid())",
        f"select billing.assign('pi_1', '{ALICE}', null, 'mine', 'me', gen_random_uuid())",
        "select billing.discard(array['evt_1'], 'me', 'mine')",
        "select billing.add_action(1, gen_random_uuid(), 'adjust', null, 'me', 'cli', 'mine', null, 5, 0)",
    ],
)
def test_operators_function_called_by_others_is_refused(acted: Database, role: str, call: str) -> None:
    """service_role is one of them: a stolen service key gives no credits by these functions."""
    assert_refused(acted, role, call)


def test_adjust_with_shadowed_names_credits_the_real_user(database: Database, owner: psycopg.Connection) -> None:
    """The caller's own tables and functions have no effect, although the function runs as its owner."""
    owner.execute("""
        create schema hostile;
        grant usage on schema hostile to public;
        create function hostile.nextval(regclass) returns bigint language plpgsql as $$begin raise 'hijacked'; end$$;
        create function hostile.btrim(text) returns text language plpgsql as $$begin raise 'hijacked'; end$$;
    """)
    with connected(database, "billing_operator") as operator:
        operator.execute("""
            set search_path = pg_temp, hostile, pg_catalog, public;
            create temp table users (id uuid, credits_balance bigint);
            create temp table transactions (id uuid, user_id uuid, amount bigint, type text, description text);
            create temp table operator_actions (number bigint, id uuid, action text, reason text);
            create domain pg_temp.int8 as bigint check (false);
            create domain pg_temp.uuid as pg_catalog.uuid check (false)
        """)
        assert adjust(operator, ALICE, 5)[1] == 105
        assert (
            execute(operator, "table pg_temp.transactions") == execute(operator, "table pg_temp.operator_actions") == []
        )
    assert balance(owner, ALICE) == 105


def test_actions_are_readable_by_service_role(acted: Database) -> None:
    with connected(acted, "service_role") as worker:
        assert actions(worker) == [("adjust", ALICE, "a bonus", 5, 0)]


# What an action stores


def test_action_stores_login_and_channel(acted: Database) -> None:
    """`by` is what the operator claims; the login is what the database knows."""
    with connected(acted, "service_role") as worker:
        columns = execute(worker, "select by, login, channel, description from billing.operator_actions")
    assert columns == [("ann", "webhook_operator", "sql", None)]


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"reason": " "}, MISSING_TEXT),
        ({"reason": None}, MISSING_TEXT),
        ({"by": ""}, MISSING_TEXT),
        ({"by": None}, MISSING_TEXT),
        ({"description": " "}, MISSING_TEXT),
        ({"reason": "x" * 1001}, TEXT_TOO_LONG),
        ({"by": "x" * 101}, TEXT_TOO_LONG),
        ({"description": "x" * 201}, TEXT_TOO_LONG),
    ],
)
def test_action_with_bad_text_is_refused(
    acted: Database, values: dict[str, str | None], refusal: tuple[str, str]
) -> None:
    with connected(acted, "billing_operator") as operator, refused(refusal):
        adjust(operator, ALICE, 5, **values)


def test_action_on_an_unknown_channel_is_refused(acted: Database) -> None:
    with connected(acted, "billing_operator") as operator, pytest.raises(psycopg.errors.CheckViolation):
        adjust(operator, ALICE, 5, channel="phone")


# Erasure


@pytest.fixture
def noted(database: Database, owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection after actions about Alice and Bob, and about parked events of both."""
    for user in (ALICE, BOB):
        parked = ["select billing.park(%s, 'some.type', 'missing_credits', null, %s)", [user, f'{{"ref": "{user}"}}']]
        owner.execute(*parked)
    with connected(database, "billing_operator") as operator:
        for user in (ALICE, BOB):
            adjust(operator, user, 5, description="Thanks")
            discard(operator, user)
    return owner


def test_erase_blanks_the_users_actions(noted: psycopg.Connection) -> None:
    """The numbers, credits and operators stay."""
    execute(noted, f"select billing.erase_user('{ALICE}')")
    assert actions(noted) == [
        ("adjust", None, None, 5, 0),
        ("discard", None, None, 0, 0),
        ("adjust", BOB, "a bonus", 5, 0),
        ("discard", BOB, "a test", 0, 0),
    ]
    assert execute(noted, "select distinct by from billing.operator_actions where subject is null") == [("ann",)]
    assert ALICE not in str(execute(noted, "select * from billing.operator_actions"))


def test_erase_keeps_actions_append_only(noted: psycopg.Connection) -> None:
    execute(noted, f"select billing.erase_user('{ALICE}')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        noted.execute("delete from billing.operator_actions")


def test_erase_deletes_events_with_the_users_email(noted: psycopg.Connection) -> None:
    """Open events and discarded ones; not those with a longer address."""
    for event_id, email in (("evt_a", "A@example.com"), ("evt_aa", "aa@example.com")):
        body = f'{{"customer_details": {{"email": "{email}"}}}}'
        noted.execute("select billing.park(%s, 'some.type', 'missing_user', null, %s)", [event_id, body])
    execute(noted, f"select billing.erase_user('{ALICE}')")
    assert execute(noted, "select event_id from billing.parked_events where resolved_at is null") == [("evt_aa",)]


def test_erase_of_a_user_whom_no_action_names_changes_none(noted: psycopg.Connection) -> None:
    before = actions(noted)
    sign_up(noted, CAROL)
    record(noted, sale("pi_c", CAROL))
    execute(noted, f"select billing.erase_user('{CAROL}')")
    assert actions(noted) == before
