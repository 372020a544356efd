"""Permissions on holds, tested by attack: only service_role makes and ends them, and an ended one never changes."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.generations import capture, hold, holds, release, reserve
from support.roles import ALICE, BOB, assert_refused, connected, execute, open_accounts

OPEN, CAPTURED, RELEASED, BOBS, NEW = (f"{number}1111111-0000-4000-8000-000000000001" for number in range(1, 6))
OTHER_ROLES = ("anon", "authenticated", "worker")
ROLES = (*OTHER_ROLES, "service_role", "owner")
CALLS = {
    "reserve own credits": f"select public.reserve_generation('{ALICE}', 1, '{NEW}')",
    "reserve another user's credits": f"select public.reserve_generation('{BOB}', 1, '{NEW}')",
    "capture own hold": f"select public.capture_generation('{OPEN}')",
    "release own hold": f"select public.release_generation('{OPEN}')",
    "release another user's hold": f"select public.release_generation('{BOBS}')",
    "read the available credits": f"select billing.available_credits('{ALICE}')",
    "read the held credits": f"select billing.held_credits('{ALICE}', now())",
}
WRITES = {
    "insert": f"""
        insert into public.generation_holds (id, user_id, amount, expires_at) values ('{NEW}', '{ALICE}', 1, now())
    """,
    "end": f"update public.generation_holds set released_at = now() where id = '{OPEN}'",
    "extend": f"update public.generation_holds set expires_at = now() + interval '1 year' where id = '{OPEN}'",
    "delete": f"delete from public.generation_holds where id = '{OPEN}'",
    "truncate": "truncate public.generation_holds",
    "lock": "select from public.generation_holds for update",
}
SERVICE_ROLE_WRITES = {
    "amount": f"update public.generation_holds set amount = 1 where id = '{OPEN}'",
    "user": f"update public.generation_holds set user_id = '{BOB}' where id = '{OPEN}'",
    "id": f"update public.generation_holds set id = '{NEW}' where id = '{OPEN}'",
    "created_at": f"update public.generation_holds set created_at = now() where id = '{OPEN}'",
    "upsert": f"""
        insert into public.generation_holds (id, user_id, amount, expires_at) values ('{OPEN}', '{ALICE}', 1, now())
        on conflict (id) do update set amount = excluded.amount
    """,
    "merge": f"""
        merge into public.generation_holds as known using (select '{OPEN}'::uuid as id) as given on known.id = given.id
        when matched then update set amount = 1
    """,
    "delete": "delete from public.generation_holds",
    "truncate": "truncate public.generation_holds",
    "trigger": "drop trigger generation_holds_keep_ended on public.generation_holds",
    "disabled trigger": "alter table public.generation_holds disable trigger all",
    "policy": "drop policy generation_holds_select_own on public.generation_holds",
    "row-level security": "alter table public.generation_holds disable row level security",
    "function": "alter function public.capture_generation(uuid, bigint) security definer",
}
CHANGES_OF_ENDED = {
    "open a captured hold": f"update public.generation_holds set captured_at = null where id = '{CAPTURED}'",
    "open a released hold": f"update public.generation_holds set released_at = null where id = '{RELEASED}'",
    "release a captured hold": f"""
        update public.generation_holds set captured_at = null, released_at = now() where id = '{CAPTURED}'
    """,
    "capture a released hold": f"""
        update public.generation_holds set captured_at = now(), released_at = null where id = '{RELEASED}'
    """,
    "extend a released hold": f"""
        update public.generation_holds set expires_at = now() + interval '1 hour' where id = '{RELEASED}'
    """,
    "upsert": f"""
        insert into public.generation_holds (id, user_id, amount, expires_at)
        values ('{CAPTURED}', '{ALICE}', 10, now())
        on conflict (id) do update set expires_at = excluded.expires_at
    """,
}
IMPOSSIBLE_HOLDS = {
    "both ends": f"update public.generation_holds set captured_at = now(), released_at = now() where id = '{OPEN}'",
    "no credits": f"""
        insert into public.generation_holds (id, user_id, amount, expires_at) values ('{NEW}', '{ALICE}', 0, now())
    """,
    "negative credits": f"""
        insert into public.generation_holds (id, user_id, amount, expires_at) values ('{NEW}', '{ALICE}', -5, now())
    """,
}


@pytest.fixture(scope="module")
def bank(bank: Database) -> Database:
    """The shared database, in which Alice and Bob have holds."""
    with psycopg.connect(bank.admin_url) as owner:
        add_holds(owner)
    return bank


def add_holds(owner: psycopg.Connection) -> None:
    for generation in (OPEN, CAPTURED, RELEASED):
        reserve(owner, ALICE, 10, generation)
    capture(owner, CAPTURED)
    release(owner, RELEASED)
    reserve(owner, BOB, 10, BOBS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", OTHER_ROLES)
def test_call_without_service_role_is_refused(bank: Database, role: str, call: str) -> None:
    assert_refused(bank, role, CALLS[call])


@pytest.mark.parametrize("call", ["reserve own credits", "capture own hold", "release own hold"])
@pytest.mark.parametrize("role", OTHER_ROLES)
def test_call_with_a_mistaken_grant_is_still_refused(database: Database, role: str, call: str) -> None:
    """The functions run with the caller's permissions, so the caller must be able to write the holds."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        add_holds(owner)
        owner.execute("grant execute on all functions in schema public to public")
        owner.execute("grant usage on schema billing to public")
        owner.execute("grant execute on all functions in schema billing to public")
    assert_refused(database, role, CALLS[call])


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("role", OTHER_ROLES)
def test_write_of_holds_without_service_role_is_refused(bank: Database, role: str, way: str) -> None:
    """A user cannot hold, free or lock credits."""
    assert_refused(bank, role, WRITES[way])


@pytest.mark.parametrize("way", SERVICE_ROLE_WRITES)
def test_service_role_changes_only_the_end_of_a_hold(bank: Database, way: str) -> None:
    """It may write expires_at, captured_at and released_at."""
    assert_refused(bank, "service_role", SERVICE_ROLE_WRITES[way])


@pytest.mark.parametrize("way", CHANGES_OF_ENDED)
@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_change_of_an_ended_hold_is_refused(bank: Database, role: str, way: str) -> None:
    assert_refused(bank, role, CHANGES_OF_ENDED[way])


@pytest.mark.parametrize("way", IMPOSSIBLE_HOLDS)
@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_impossible_hold_is_refused(bank: Database, role: str, way: str) -> None:
    assert_refused(bank, role, IMPOSSIBLE_HOLDS[way], "23514")


@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_delete_of_a_user_with_a_hold_is_refused(database: Database, role: str) -> None:
    """The owner's delete fails at the foreign keys."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        add_holds(owner)
        owner.execute("alter table public.transactions disable trigger transactions_append_only")
        owner.execute("delete from public.transactions")
    assert_refused(database, role, "delete from public.users", "42501", "23503", "23001")


@pytest.mark.parametrize("role", ["anon", "worker"])
def test_select_of_holds_by_anon_or_worker_is_refused(bank: Database, role: str) -> None:
    assert_refused(bank, role, "select * from public.generation_holds")


def test_users_see_only_their_own_holds(bank: Database) -> None:
    query = "select id::text from public.generation_holds order by id"
    for user, found in ((ALICE, [(OPEN,), (CAPTURED,), (RELEASED,)]), (BOB, [(BOBS,)])):
        with connected(bank, "authenticated", user=user) as page:
            assert execute(page, query) == found


def test_service_role_may_reserve_and_end_holds(database: Database) -> None:
    """This is the counterpart of the refusals: the same calls by the permitted role."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        with connected(database, "service_role") as generator:
            hold(generator, CAPTURED, "captured")
            hold(generator, RELEASED, "released")
            execute(generator, WRITES["insert"])
        assert [state for *_, state in holds(owner)] == ["captured", "released", "expired"]
