"""The ledger table: credits_balance is sum(amount) at every commit, and rows never change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from threading import Barrier

import psycopg
import pytest
from psycopg import errors

from support.databases import Database
from support.roles import ALICE, BOB, CAROL, add, balance, connected, contents, execute, sign_up
from support.waiting import WAIT_TIMEOUT
from webhook.ledger.migrate import migrate

HIGHEST = 2**53 - 1
MOST_CREDITS_OF_A_SALE = 1_000_000_000

WRITERS = 20
INSERTS_EACH = 3

# Enough rows for the inserts to overlap.
MANY_USERS = 3_000
LONG_WRITERS = 4
LONG_INSERTS_EACH = 8

INSERT_FOR_ALL = "insert into public.transactions (user_id, amount, type) select unnest(%s::uuid[]), 1, 'PURCHASE'"
INSERT_FOR_BOTH = (
    "insert into public.transactions (user_id, amount, type) values (%s, 1, 'PURCHASE'), (%s, 2, 'PURCHASE')"
)

CHANGES = {
    "update": "update public.transactions set amount = 1",
    "update_of_no_row": "update public.transactions set amount = 1 where false",
    "delete": "delete from public.transactions",
    "delete_of_no_row": "delete from public.transactions where false",
    "truncate": "truncate public.transactions",
    "upsert_of_no_row": """
        insert into public.transactions as known (user_id, amount, type)
        select user_id, amount, type from public.transactions where false
        on conflict (id) do update set amount = 1
    """,
}


@pytest.fixture
def ledger(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice and Bob have no credits yet."""
    sign_up(admin, ALICE, BOB)
    return admin


@pytest.fixture
def generation(ledger: psycopg.Connection) -> str:
    """The id of a generation that cost Alice 3 credits."""
    return add(ledger, ALICE, -3, type="GENERATION")


def balances(connection: psycopg.Connection) -> list[int]:
    """Return all balances by user id, and check that each is the sum of its rows."""
    sums = execute(
        connection,
        """
        select users.credits_balance, coalesce(sum(amount), 0)
        from public.users
        left join public.transactions on user_id = users.id
        group by users.id
        order by users.id
        """,
    )
    assert [kept for kept, _ in sums] == [summed for _, summed in sums]
    return [kept for kept, _ in sums]


# The balance


def test_balance_of_a_new_user_is_zero(ledger: psycopg.Connection) -> None:
    assert balances(ledger) == [0, 0]


def test_balance_after_single_inserts_is_their_sum(ledger: psycopg.Connection) -> None:
    add(ledger, ALICE, 100)
    add(ledger, ALICE, -30, type="GENERATION")
    add(ledger, ALICE, -80, type="REFUND")
    assert balances(ledger) == [-10, 0]


def test_balance_after_one_insert_of_several_rows_is_their_sum(ledger: psycopg.Connection) -> None:
    ledger.execute(INSERT_FOR_BOTH, [ALICE, ALICE])
    assert balances(ledger) == [3, 0]


def test_balances_after_one_insert_for_two_users_are_their_sums(ledger: psycopg.Connection) -> None:
    ledger.execute(INSERT_FOR_BOTH, [BOB, ALICE])
    assert balances(ledger) == [2, 1]


def test_balances_after_insert_select_are_their_sums(ledger: psycopg.Connection) -> None:
    ledger.execute("""
        insert into public.transactions (user_id, amount, type)
        select id, number, 'PURCHASE' from public.users cross join generate_series(1, 10) as number
    """)
    assert balances(ledger) == [55, 55]


def test_balances_after_insert_select_of_no_rows_are_unchanged(ledger: psycopg.Connection) -> None:
    ledger.execute("""
        insert into public.transactions (user_id, amount, type) select id, 1, 'PURCHASE' from public.users where false
    """)
    assert balances(ledger) == [0, 0]


def test_balances_after_copy_are_their_sums(ledger: psycopg.Connection) -> None:
    lines = f"{ALICE}\t7\tPURCHASE\n{BOB}\t8\tPURCHASE\n{ALICE}\t-2\tGENERATION\n"
    execute(ledger, f"copy public.transactions (user_id, amount, type) from stdin\n{lines}")
    assert balances(ledger) == [5, 8]


def test_balances_after_merge_are_their_sums(ledger: psycopg.Connection) -> None:
    ledger.execute("""
        merge into public.transactions using public.users on user_id = users.id
        when not matched then insert (user_id, amount, type) values (users.id, 9, 'PURCHASE')
    """)
    assert balances(ledger) == [9, 9]


def test_balance_after_on_conflict_counts_only_the_new_row(ledger: psycopg.Connection) -> None:
    add(ledger, ALICE, 100, stripe_id="pi_1")
    ledger.execute(
        """
        insert into public.transactions (user_id, amount, type, stripe_id)
        values (%(user)s, 100, 'PURCHASE', 'pi_1'), (%(user)s, 5, 'PURCHASE', 'pi_2')
        on conflict do nothing
        """,
        {"user": ALICE},
    )
    assert balances(ledger) == [105, 0]


def test_balance_after_a_rolled_back_insert_is_unchanged(ledger: psycopg.Connection) -> None:
    with ledger.transaction(force_rollback=True):
        add(ledger, ALICE, 100)
        assert balance(ledger, ALICE) == 100
    assert balances(ledger) == [0, 0]


def test_balance_after_a_savepoint_rollback_counts_the_rest(ledger: psycopg.Connection) -> None:
    with ledger.transaction():
        add(ledger, ALICE, 100)
        with ledger.transaction(force_rollback=True):
            add(ledger, ALICE, 5)
    assert balances(ledger) == [100, 0]


def test_balance_after_an_insert_fails_halfway_is_unchanged(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        ledger.execute(INSERT_FOR_BOTH, [ALICE, CAROL])
    assert balances(ledger) == [0, 0]


def test_parallel_inserts_in_opposite_orders_are_all_counted(database: Database, ledger: psycopg.Connection) -> None:
    start = Barrier(WRITERS)

    def write(number: int) -> None:
        users = [ALICE, BOB] if number % 2 else [BOB, ALICE]
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            start.wait()
            for _ in range(INSERTS_EACH):
                connection.execute(INSERT_FOR_BOTH, users)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))
    assert balances(ledger) == [90, 90]


def test_parallel_inserts_by_service_role_are_all_counted(database: Database, ledger: psycopg.Connection) -> None:
    start, numbers = Barrier(WRITERS), count()

    def write(_: int) -> None:
        with connected(database, "service_role") as connection:
            start.wait()
            for _ in range(INSERTS_EACH):
                add(connection, ALICE, 1, stripe_id=f"pi_{next(numbers)}")

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))
    assert balances(ledger) == [60, 0]


def test_parallel_inserts_for_many_users_are_all_counted(database: Database, ledger: psycopg.Connection) -> None:
    """Long inserts for the same users, each in its own order, wait for one another without a deadlock."""
    ledger.execute("insert into auth.users (id) select gen_random_uuid() from generate_series(3, %s)", [MANY_USERS])
    ledger.execute("analyze public.users")
    users, start = [user for (user,) in execute(ledger, "select id from public.users")], Barrier(LONG_WRITERS)

    def write(number: int) -> None:
        with connected(database, "service_role") as connection:
            connection.execute(f"set statement_timeout = '{WAIT_TIMEOUT}s'")
            start.wait()
            for turn in range(LONG_INSERTS_EACH):
                shuffled = Random(number * LONG_INSERTS_EACH + turn).sample(users, MANY_USERS)
                connection.execute(INSERT_FOR_ALL, [shuffled])

    with ThreadPoolExecutor(LONG_WRITERS) as writers:
        list(writers.map(write, range(LONG_WRITERS)))
    assert balances(ledger) == [LONG_WRITERS * LONG_INSERTS_EACH] * MANY_USERS


# Limits


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("PURCHASE", 0),
        ("PURCHASE", -1),
        ("PURCHASE", MOST_CREDITS_OF_A_SALE + 1),
        ("GENERATION", 0),
        ("GENERATION", 1),
        ("GENERATION", -HIGHEST - 1),
        ("REFUND", 0),
        ("REFUND", HIGHEST + 1),
        ("REFUND", -HIGHEST - 1),
    ],
)
def test_amount_outside_the_range_of_its_type_is_refused(ledger: psycopg.Connection, kind: str, amount: int) -> None:
    with pytest.raises(errors.CheckViolation, match="transactions_amount_sign"):
        add(ledger, ALICE, amount, type=kind)
    assert balances(ledger) == [0, 0]


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("PURCHASE", 1),
        ("PURCHASE", MOST_CREDITS_OF_A_SALE),
        ("GENERATION", -1),
        ("GENERATION", -HIGHEST),
        ("REFUND", 1),
        ("REFUND", HIGHEST),
        ("REFUND", -1),
        ("REFUND", -HIGHEST),
    ],
)
def test_amount_within_the_range_of_its_type_is_stored(ledger: psycopg.Connection, kind: str, amount: int) -> None:
    add(ledger, ALICE, amount, type=kind)
    assert balances(ledger) == [amount, 0]


def test_unknown_type_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.InvalidTextRepresentation):
        add(ledger, ALICE, 1, type="GIFT")


@pytest.mark.parametrize("sign", [1, -1])
def test_balance_one_beyond_its_range_is_refused(ledger: psycopg.Connection, sign: int) -> None:
    add(ledger, ALICE, sign * HIGHEST, type="REFUND")
    with pytest.raises(errors.CheckViolation, match="users_credits_balance_range"):
        add(ledger, ALICE, sign, type="REFUND")
    assert balances(ledger) == [sign * HIGHEST, 0]


def test_balance_beyond_bigint_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.NumericValueOutOfRange):
        ledger.execute(
            """
            insert into public.transactions (user_id, amount, type)
            select %s, %s, 'REFUND' from generate_series(1, 1025)
            """,
            [ALICE, HIGHEST],
        )
    assert balances(ledger) == [0, 0]


def test_balance_at_its_maximum_after_one_insert_is_stored(ledger: psycopg.Connection) -> None:
    """Only the sum of an insert's rows must be in the range."""
    ledger.execute(
        """
        insert into public.transactions (user_id, amount, type)
        values (%(user)s, %(highest)s, 'REFUND'), (%(user)s, 5, 'PURCHASE'), (%(user)s, -5, 'GENERATION')
        """,
        {"user": ALICE, "highest": HIGHEST},
    )
    assert balances(ledger) == [HIGHEST, 0]


# References and ids


@pytest.mark.parametrize("user", [ALICE, BOB])
def test_duplicate_stripe_id_is_refused(ledger: psycopg.Connection, user: str) -> None:
    add(ledger, ALICE, 1, stripe_id="pi_1")
    with pytest.raises(errors.UniqueViolation, match="transactions_stripe_id_key"):
        add(ledger, user, 1, stripe_id="pi_1")
    assert balances(ledger) == [1, 0]


def test_rows_without_a_stripe_id_are_all_stored(ledger: psycopg.Connection) -> None:
    add(ledger, ALICE, -1, type="GENERATION")
    add(ledger, ALICE, -1, type="GENERATION")
    assert balances(ledger) == [-2, 0]


def test_row_of_an_unknown_user_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        add(ledger, CAROL, 1)


def test_generation_refunded_once_returns_its_credits(ledger: psycopg.Connection, generation: str) -> None:
    add(ledger, ALICE, 3, type="REFUND", refunds=generation)
    assert balances(ledger) == [0, 0]


def test_second_refund_of_a_generation_is_refused(ledger: psycopg.Connection, generation: str) -> None:
    add(ledger, ALICE, 3, type="REFUND", refunds=generation)
    with pytest.raises(errors.UniqueViolation, match="transactions_refunds_key"):
        add(ledger, ALICE, 3, type="REFUND", refunds=generation)


@pytest.mark.parametrize(("kind", "amount"), [("PURCHASE", 3), ("GENERATION", -3), ("REFUND", -3)])
def test_refunds_column_of_any_other_row_is_refused(
    ledger: psycopg.Connection, generation: str, kind: str, amount: int
) -> None:
    """Only a REFUND row with a positive amount may refer to a generation."""
    with pytest.raises(errors.CheckViolation, match="transactions_refunds_gives_back"):
        add(ledger, ALICE, amount, type=kind, refunds=generation)


def test_refund_of_an_unknown_row_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation, match="transactions_refunds_fkey"):
        add(ledger, ALICE, 3, type="REFUND", refunds=CAROL)


# Append-only


@pytest.mark.parametrize("change", CHANGES)
def test_ledger_change_by_its_owner_is_refused(ledger: psycopg.Connection, change: str) -> None:
    add(ledger, ALICE, 100)
    before = contents(ledger)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        ledger.execute(CHANGES[change])
    assert contents(ledger) == before


@pytest.mark.parametrize("change", CHANGES)
def test_ledger_change_by_a_superuser_is_refused(database: Database, ledger: psycopg.Connection, change: str) -> None:
    add(ledger, ALICE, 100)
    before = contents(ledger)
    with psycopg.connect(database.superuser_url) as superuser, pytest.raises(errors.InsufficientPrivilege):
        superuser.execute(CHANGES[change])
    assert contents(ledger) == before


def test_balance_update_by_its_owner_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="credits_balance"):
        ledger.execute("update public.users set credits_balance = 5")
    assert balances(ledger) == [0, 0]


def test_balance_insert_by_its_owner_is_refused(ledger: psycopg.Connection) -> None:
    ledger.execute("delete from public.users where id = %s", [BOB])
    with pytest.raises(errors.InsufficientPrivilege, match="credits_balance"):
        ledger.execute("insert into public.users (id, credits_balance) values (%s, 5)", [BOB])
    assert balances(ledger) == [0]


def test_balance_update_to_the_same_value_is_allowed(ledger: psycopg.Connection) -> None:
    ledger.execute("update public.users set credits_balance = credits_balance, email = 'new'")
    assert execute(ledger, "select distinct email, credits_balance from public.users") == [("new", 0)]


# A users row for every account


def test_account_created_by_auth_has_a_users_row(database: Database, admin: psycopg.Connection) -> None:
    with connected(database, "supabase_auth_admin") as auth:
        sign_up(auth, ALICE)
    assert execute(admin, "select id::text, email, credits_balance from public.users") == [(ALICE, "a@example.com", 0)]


def test_account_with_only_a_phone_has_a_users_row(admin: psycopg.Connection) -> None:
    """Its email is null."""
    admin.execute("insert into auth.users (id, phone) values (%s, '15550100')", [ALICE])
    assert execute(admin, "select id::text, email from public.users") == [(ALICE, None)]


def test_accounts_created_by_one_statement_have_users_rows(admin: psycopg.Connection) -> None:
    admin.execute("insert into auth.users (id) values (%s), (%s)", [ALICE, BOB])
    assert balances(admin) == [0, 0]


def test_rolled_back_account_has_no_users_row(admin: psycopg.Connection) -> None:
    with admin.transaction(force_rollback=True):
        sign_up(admin, ALICE)
    assert balances(admin) == []


def test_accounts_older_than_the_schema_have_users_rows(empty_database: Database) -> None:
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        sign_up(admin, ALICE)
        admin.execute("insert into auth.users (id, phone) values (%s, '15550100')", [BOB])
        migrate(empty_database.admin_url)
        rows = execute(admin, "select id::text, email, credits_balance from public.users order by id")
    assert rows == [(ALICE, "a@example.com", 0), (BOB, None, 0)]


def test_accounts_older_and_newer_than_the_schema_get_credits(empty_database: Database) -> None:
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        sign_up(admin, ALICE)
        migrate(empty_database.admin_url)
        sign_up(admin, BOB)
        admin.execute(INSERT_FOR_BOTH, [ALICE, BOB])
        assert balances(admin) == [1, 2]
