"""Who may spend, by attack: service_role alone, and nobody past the functions' rules."""

from __future__ import annotations

import psycopg
import pytest

from support.databases import Database
from support.generations import authorize
from support.roles import ALICE, BOB, assert_refused, balance, connected, contents, execute, open_accounts

GENERATION, ANOTHER = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
EVERYONE_ELSE = ("anon", "authenticated", "worker")
CALLS = {
    "spend one's own": f"select public.authorize_generation('{ALICE}', 1, '{ANOTHER}')",
    "spend another's": f"select public.authorize_generation('{BOB}', 1, '{ANOTHER}')",
    "give back one's own": f"select public.refund_generation('{GENERATION}')",
    "mint by a negative cost": f"select public.authorize_generation('{ALICE}', -1000, '{ANOTHER}')",
}
MINTING = {
    "a refund of a purchase": f"""
        insert into public.transactions (user_id, amount, type, refunds)
        select '{ALICE}', amount, 'REFUND', id from public.transactions where stripe_id = 'pi_a'
    """,
    "a refund of another's generation": f"""
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
REPLACING = (
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
@pytest.mark.parametrize("role", EVERYONE_ELSE)
def test_spending_by_anyone_but_service_role_is_refused(bank: Database, role: str, call: str) -> None:
    """No user spends, gives back or mints, neither their own nor another's credits."""
    assert_refused(bank, role, CALLS[call])


@pytest.mark.parametrize("call", ["spend one's own", "give back one's own"])
@pytest.mark.parametrize("role", EVERYONE_ELSE)
def test_spending_that_was_granted_by_mistake_is_still_refused(database: Database, role: str, call: str) -> None:
    """The functions can do what their caller can do: whoever may not write the ledger cannot spend by them."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        authorize(owner, ALICE, 30, GENERATION)
        owner.execute("grant execute on all functions in schema public to public")
    assert_refused(database, role, CALLS[call])


@pytest.mark.parametrize("way", MINTING)
@pytest.mark.parametrize("role", ["service_role", "owner"])
def test_minting_by_rows_of_generations_is_refused(bank: Database, role: str, way: str) -> None:
    """Neither the generator nor the owner makes credits by a row that gives back, or spends, what is not there."""
    assert_refused(bank, role, MINTING[way], "23514", "23505")


@pytest.mark.parametrize("statement", REPLACING)
@pytest.mark.parametrize("role", [*EVERYONE_ELSE, "service_role"])
def test_functions_changed_by_anyone_but_the_owner_are_refused(bank: Database, role: str, statement: str) -> None:
    """Who may call the functions may not change them."""
    assert_refused(bank, role, statement)


def test_generations_of_others_are_not_found_by_a_user(bank: Database) -> None:
    """A user's history holds their own generations alone."""
    query = "select id::text from public.transactions where type = 'GENERATION'"
    for user, found in ((ALICE, [(GENERATION,)]), (BOB, [])):
        with connected(bank, "authenticated", user=user) as page:
            assert execute(page, query) == found


def test_spending_by_the_worker_as_service_role_is_debited(database: Database) -> None:
    """The allow beside the denies: the same call by the role that may."""
    with psycopg.connect(database.admin_url, autocommit=True) as owner:
        open_accounts(owner)
        before = contents(owner)
        with connected(database, "service_role") as generator:
            execute(generator, CALLS["spend one's own"])
        assert balance(owner, ALICE) == 99
        assert contents(owner) != before
