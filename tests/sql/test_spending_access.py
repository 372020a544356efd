"""Permission to spend, tested by attack: only service_role may spend, and no role can bypass the constraints."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.generations import authorize
from support.roles import ALICE, BOB, assert_refused, balance, connected, contents, execute, open_accounts

GENERATION, ANOTHER = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
OTHER_ROLES = ("anon", "authenticated", "worker")
CALLS = {
    "spend own credits": f"select public.authorize_generation('{ALICE}', 1, '{ANOTHER}')",
    "spend another user's credits": f"select public.authorize_generation('{BOB}', 1, '{ANOTHER}')",
    "refund own generation": f"select public.refund_generation('{GENERATION}')",
    "negative cost": f"select public.authorize_generation('{ALICE}', -1000, '{ANOTHER}')",
}
MINTING = {
    "a refund of a purchase": f"""
        insert into public.transactions (user_id, amount, type, refunds)
        select '{ALICE}', amount, 'REFUND', id from public.transactions where stripe_id = 'pi_a'
    """,
    "a refund of another user's generation": f"""
        insert into public.transactions (user_id, amount, type, refunds) values ('{BOB}', 30, 'REFUND', '{GENERATION}')
    """,
    "a second refund": f"""
        insert into public.transactions (user_id, amount, type, refunds) values
            ('{ALICE}', 30, 'REFUND', '{GENERATION}'), ('{ALICE}', 30, 'REFUND', '{GENERATION}')
    """,
    "a generation of a negative cost": f"""
        insert into public.transactions (user_id, amount, type) values ('{ALICE}', 30, 'GENERATION')
    """,
}
FUNCTION_CHANGES = (
    """
    create or replace function public.authorize_generation(p_user_id uuid, p_cost bigint, p_generation_id uuid)
    returns bigint language sql as 'select 1000000'
    """,
    "alter function public.authorize_generation(uuid, bigint, uuid) security definer",
    "alter function public.authorize_generation(uuid, bigint, uuid) reset search_path",
    "drop function public.refund_generation(uuid)",
    "drop trigger transactions_refunds_a_generation on public.transactions",
    "alter table public.transactions disable trigger transactions_refunds_a_generation",
)


@pytest.fixture(scope="module")
def bank(bank: Database) -> Database:
    """The shared database, in which Alice has spent 30 of her 100 credits."""
    with psycopg.connect(bank.admin_url) as owner:
        authorize(owner, ALICE, 30, GENERATION)
    return bank


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", OTHER_ROLES)
def test_spending_without_service_role_is_refused(bank: Database, role: str, call: str) -> None:
    """It covers the caller's own credits and another user's."""
    assert_refused(bank, role, CALLS[call])


@pytest.mark.parametrize("call", ["spend own credits", "refund own generation"])
@pytest.mark.parametrize("role", OTHER_ROLES)
def test_spending_with_a_mistaken_grant_is_still_refused(database: Database, role: str, call: str) -> None:
    """The functions run with the caller's permissions, so the caller must be able to write the ledger."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        authorize(owner, ALICE, 30, GENERATION)
        owner.execute("grant execute on all functions in schema public to public")
    assert_refused(database, role, CALLS[call])


@pytest.mark.parametrize("way", MINTING)
@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_minting_by_generation_or_refund_rows_is_refused(bank: Database, role: str, way: str) -> None:
    """The constraints apply to service_role and the owner, too."""
    assert_refused(bank, role, MINTING[way], "23514", "23505")


@pytest.mark.parametrize("statement", FUNCTION_CHANGES)
@pytest.mark.parametrize("role", [*OTHER_ROLES, "service_role"])
def test_function_change_by_non_owner_is_refused(bank: Database, role: str, statement: str) -> None:
    """Permission to call the functions is no permission to change them."""
    assert_refused(bank, role, statement)


def test_other_users_generations_are_not_found(bank: Database) -> None:
    query = "select id::text from public.transactions where type = 'GENERATION'"
    for user, found in ((ALICE, [(GENERATION,)]), (BOB, [])):
        with connected(bank, "authenticated", user=user) as page:
            assert execute(page, query) == found


def test_spending_by_service_role_is_debited(database: Database) -> None:
    """This is the counterpart of the refusals: the same call by the permitted role."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        before = contents(owner)
        with connected(database, "service_role") as generator:
            execute(generator, CALLS["spend own credits"])
        assert balance(owner, ALICE) == 99
        assert contents(owner) != before
