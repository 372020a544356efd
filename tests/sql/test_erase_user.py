"""billing.erase_user(), the only function that deletes ledger rows, and the tombstones that it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from psycopg import errors

from support.databases import Database
from support.roles import ALICE, BOB, CAROL, add, balance, connected, contents, execute, record, refund, sale, sign_up

Waiting = Callable[..., Future[None]]

TIMEOUT = 10
DUPLICATE = {"outcome": "duplicate"}
WRITERS = 8
SALES_EACH = 5

TRIGGERS = "select tgname, tgenabled from pg_trigger where tgrelid = 'public.transactions'::regclass order by 1"


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection. Alice has two sales, a partial refund and a generation; Bob has a sale and a refund."""
    sign_up(admin, ALICE, BOB)
    record(admin, sale("pi_a", ALICE), event_id="evt_a")
    record(
        admin,
        sale("in_a", ALICE, version=2),
        {"kind": "link", "id": "in_a", "invoice_id": "in_a", "payment_id": "pi_a2"},
        event_id="evt_a2",
    )
    record(admin, refund("re_a", "pi_a", 100), event_id="evt_ra")
    record(admin, sale("pi_b", BOB), refund("re_b", "pi_b", 100), event_id="evt_b")
    add(admin, ALICE, -7, type="GENERATION")
    return admin


@pytest.fixture
def erased(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection after Alice was erased."""
    erase(owner, ALICE)
    return owner


def erase(connection: psycopg.Connection, user: str) -> None:
    connection.execute("select billing.erase_user(%s)", [user])


def park(
    connection: psycopg.Connection,
    event_id: str,
    payload: dict[str, Any],
    payment_id: str | None = None,
    user_reference: str | None = None,
) -> None:
    arguments = [event_id, "some.type", "missing_credits", payment_id, json.dumps(payload), user_reference]
    connection.execute("select billing.park(%s, %s, %s, %s, %s, %s)", arguments)


def rows_of_bob(connection: psycopg.Connection) -> dict[str, list[Any]]:
    """Return every row that names Bob or his sale, by table."""
    return {
        table: [row for row in rows if BOB in str(row) or "pi_b" in str(row)]
        for table, rows in contents(connection).items()
    }


@pytest.fixture
def waiting(database: Database) -> Iterator[Waiting]:
    """Return a function that runs a statement as the owner in a thread and returns once that waits."""
    blocked = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

    def run(statement: str, parameters: list[str]) -> None:
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            connection.execute(statement, parameters)

    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.superuser_url, autocommit=True) as watcher:

        def start(statement: str, *parameters: str) -> Future[None]:
            done = thread.submit(run, statement, list(parameters))
            while not watcher.execute(blocked).rowcount:
                assert not done.done()
            return done

        yield start


# Permissions


@pytest.mark.parametrize("role", ["anon", "authenticated", "worker", "service_role", "supabase_auth_admin"])
def test_erase_by_non_owner_is_refused(database: Database, owner: psycopg.Connection, role: str) -> None:
    before = contents(owner)
    with connected(database, role, user=ALICE) as attacker, pytest.raises(errors.InsufficientPrivilege):
        erase(attacker, ALICE)
    assert contents(owner) == before


def test_erase_by_service_role_with_a_grant_is_refused(database: Database, owner: psycopg.Connection) -> None:
    owner.execute("grant execute on function billing.erase_user(uuid) to service_role")
    before = contents(owner)
    with connected(database, "service_role") as attacker, pytest.raises(errors.InsufficientPrivilege):
        erase(attacker, ALICE)
    assert contents(owner) == before


# Erased data


@pytest.mark.parametrize(("table", "column"), [("transactions", "user_id"), ("users", "id")])
def test_erase_deletes_the_users_rows_in_public(erased: psycopg.Connection, table: str, column: str) -> None:
    assert execute(erased, f"select * from public.{table} where {column} = '{ALICE}'") == []


def test_erase_leaves_the_users_id_only_in_auth(erased: psycopg.Connection) -> None:
    tables = contents(erased)
    assert [name for name, rows in tables.items() if ALICE in str(rows)] == ["auth.users"]


def test_erase_leaves_tombstones_without_details(erased: psycopg.Connection) -> None:
    """A tombstone has a payment id, and no user, credits, money or currency."""
    assert execute(
        erased,
        """
        select distinct payment_id, num_nonnulls(user_id, credits, money_amount, currency)
        from billing.sales where erased_at is not null order by 1
        """,
    ) == [("in_a", 0), ("pi_a", 0), ("pi_a2", 0)]


def test_erase_deletes_the_users_reversals(erased: psycopg.Connection) -> None:
    assert execute(erased, "select reversal_id from billing.reversals") == [("re_b",)]


@pytest.mark.parametrize(
    "payload",
    [
        {"client_reference_id": ALICE},
        {"data": {"object": {"metadata": {"user_id": ALICE.upper()}}}},
    ],
    ids=["reference", "metadata"],
)
def test_erase_deletes_parked_events_that_name_the_user(owner: psycopg.Connection, payload: dict[str, Any]) -> None:
    park(owner, "evt_parked", payload)
    erase(owner, ALICE)
    assert execute(owner, "select * from billing.parked_events") == []


def test_erase_deletes_parked_events_of_the_users_payments(owner: psycopg.Connection) -> None:
    park(owner, "evt_parked", {"email": "a@example.com"}, payment_id="pi_a")
    erase(owner, ALICE)
    assert execute(owner, "select * from billing.parked_events") == []


def test_erase_keeps_parked_events_of_other_users(owner: psycopg.Connection) -> None:
    park(owner, "evt_parked", {"client_reference_id": BOB}, payment_id="pi_b2")
    erase(owner, ALICE)
    assert execute(owner, "select event_id from billing.parked_events") == [("evt_parked",)]


def test_erase_of_a_gifts_payer_keeps_the_receivers_event(owner: psycopg.Connection) -> None:
    """The receiver has not signed up yet. Only the payer's id disappears from the event."""
    park(owner, "evt_gift", {"client_reference_id": ALICE.upper()}, payment_id="pi_gift", user_reference=CAROL)
    erase(owner, ALICE)
    [(payload,)] = execute(owner, "select payload::text from billing.parked_events")
    assert ALICE not in payload.lower()
    sign_up(owner, CAROL)
    assert record(owner, sale("pi_gift", CAROL)) == {"outcome": "recorded"}


def test_erase_lists_another_users_sale_without_its_event(owner: psycopg.Connection) -> None:
    """The event contains the payer's email address."""
    park(owner, "evt_gift", {"email": "a@example.com"}, payment_id="pi_gift", user_reference=CAROL)
    erase(owner, ALICE)
    listed = execute(owner, "select event_id, event_type, reason from billing.parked_events")
    assert listed == [("pi_gift", "billing.sale", "missing_credits")]


def test_erase_of_a_user_erases_an_unpaid_sale(owner: psycopg.Connection) -> None:
    """A later payment of that sale is a duplicate."""
    sign_up(owner, CAROL)
    record(owner, sale("pi_n", CAROL, paid=False))
    erase(owner, CAROL)
    assert record(owner, sale("pi_n", CAROL)) == DUPLICATE


def test_erase_of_an_unknown_user_changes_nothing(owner: psycopg.Connection) -> None:
    before = contents(owner)
    erase(owner, CAROL)
    assert contents(owner) == before


def test_second_erase_changes_nothing(erased: psycopg.Connection) -> None:
    before = contents(erased)
    erase(erased, ALICE)
    assert contents(erased) == before


def test_account_of_an_erased_user_can_be_deleted(erased: psycopg.Connection) -> None:
    deleted = execute(erased, f"delete from auth.users where id = '{ALICE}' returning id::text")
    assert deleted == [(ALICE,)]


# Kept data


def test_erase_keeps_the_rows_of_other_users(owner: psycopg.Connection) -> None:
    before = rows_of_bob(owner)
    erase(owner, ALICE)
    assert rows_of_bob(owner) == before
    assert balance(owner, BOB) == 90


def test_other_users_refund_after_an_erase_is_settled(erased: psycopg.Connection) -> None:
    assert record(erased, refund("re_b2", "pi_b", 400)) == {"outcome": "recorded"}
    assert balance(erased, BOB) == 50


@pytest.fixture
def reassigned(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection. A sale's session names Alice, its payment names Bob, so Bob has 190 credits."""
    record(owner, sale("pi_ab", ALICE), event_id="evt_ab1")
    record(owner, sale("pi_ab", BOB, version=3), event_id="evt_ab2")
    return owner


def test_erase_of_first_user_keeps_second_users_balance(reassigned: psycopg.Connection) -> None:
    before = balance(reassigned, BOB)
    erase(reassigned, ALICE)
    assert (before, balance(reassigned, BOB)) == (190, 190)


def test_erase_of_first_user_leaves_their_id_only_in_auth(reassigned: psycopg.Connection) -> None:
    erase(reassigned, ALICE)
    assert [name for name, rows in contents(reassigned).items() if ALICE in str(rows)] == ["auth.users"]


def test_redelivery_after_first_user_is_erased_is_a_duplicate(reassigned: psycopg.Connection) -> None:
    """The redelivered event names the second user, whose balance stays."""
    erase(reassigned, ALICE)
    assert record(reassigned, sale("pi_ab", BOB, version=3), event_id="evt_ab2") == DUPLICATE
    assert balance(reassigned, BOB) == 190


def test_redelivery_that_names_erased_user_stores_nothing(reassigned: psycopg.Connection) -> None:
    erase(reassigned, ALICE)
    before = contents(reassigned)
    record(reassigned, sale("pi_ab", ALICE), event_id="evt_ab1")
    assert contents(reassigned) == before


def test_refund_after_first_user_is_erased_debits_the_second(reassigned: psycopg.Connection) -> None:
    erase(reassigned, ALICE)
    assert record(reassigned, refund("re_ab", "pi_ab", 500)) == {"outcome": "recorded"}
    assert balance(reassigned, BOB) == 140


def test_erase_of_second_user_keeps_first_users_balance(reassigned: psycopg.Connection) -> None:
    """A redelivery that names the first user is a duplicate."""
    before = balance(reassigned, ALICE)
    erase(reassigned, BOB)
    assert balance(reassigned, ALICE) == before
    assert record(reassigned, sale("pi_ab", ALICE)) == DUPLICATE


# Tombstones


def customer(user: str) -> dict[str, str]:
    """Return the user of a Stripe customer, as a subscription's Checkout Session states it."""
    return {"kind": "claim", "customer_id": "cus_a", "user_id": user, "level": 1}


def test_redelivery_of_an_erased_users_customer_is_a_duplicate(
    owner: psycopg.Connection,
) -> None:
    """It stores nothing."""
    record(owner, customer(ALICE))
    erase(owner, ALICE)
    before = contents(owner)
    assert record(owner, customer(ALICE)) == DUPLICATE
    assert contents(owner) == before


def test_customer_of_an_unknown_user_is_ignored(erased: psycopg.Connection) -> None:
    """An unknown user does not count as erased."""
    assert record(erased, customer(CAROL)) == {"outcome": "ignored", "reason": "no_payment"}


def test_payment_without_credits_of_an_erased_user_drops_the_id(erased: psycopg.Connection) -> None:
    """It is another product's. Its money is stored for facts that may follow."""
    other = sale("pi_new", ALICE, credits=None)
    assert record(erased, other) == {"outcome": "ignored", "reason": "no_credits"}
    assert execute(erased, "select user_id, paid from billing.sales where payment_id = 'pi_new'") == [(None, True)]


def test_new_payment_of_an_erased_users_customer_is_unsettled(erased: psycopg.Connection) -> None:
    """It is new money, so an operator must look at it."""
    new = [customer(ALICE), sale("pi_new", ALICE)]
    assert record(erased, *new) == {"outcome": "unsettled", "reason": "unknown_user"}


@pytest.mark.parametrize(
    "facts",
    [
        [sale("pi_a", ALICE)],
        [sale("pi_a", ALICE, version=3, credits=500)],
        [sale("pi_a", None, version=3, credits=None)],
        [sale("pi_a", BOB)],
        [sale("in_a", ALICE, version=2)],
        [sale("pi_a2", ALICE, version=3)],
        [refund("re_a", "pi_a", 100)],
        [refund("re_new", "pi_a", 1000)],
        [refund("re_new", "pi_a2", 1000)],
        [sale("pi_a", ALICE), refund("re_a", "pi_a", 100)],
    ],
    ids=lambda facts: "+".join(f"{fact['kind']}-{fact.get('id', '')}-{fact['payment_id']}" for fact in facts),
)
def test_delivery_about_an_erased_sale_stores_nothing(erased: psycopg.Connection, facts: list[dict[str, Any]]) -> None:
    before = contents(erased)
    assert record(erased, *facts) == DUPLICATE
    assert contents(erased) == before


def test_link_to_an_erased_sale_stores_only_the_ids(erased: psycopg.Connection) -> None:
    """So the linked payment counts as erased, too."""
    before = contents(erased)
    link = {"kind": "link", "id": "cs_new", "invoice_id": "in_a", "payment_id": "pi_new"}
    assert record(erased, link, sale("pi_new", ALICE)) == DUPLICATE
    assert record(erased, refund("re_new", "pi_new", 1000)) == DUPLICATE
    after = contents(erased)
    assert [name for name in before if before[name] != after[name]] == ["billing.payment_links"]


def test_delivery_after_the_account_is_deleted_stores_nothing(erased: psycopg.Connection) -> None:
    """The sale stays erased when its user's account is gone."""
    erased.execute("delete from auth.users where id = %s", [ALICE])
    before = contents(erased)
    assert record(erased, sale("pi_a", ALICE)) == DUPLICATE
    assert contents(erased) == before


def test_new_sale_of_an_erased_user_is_unsettled(erased: psycopg.Connection) -> None:
    """The erased user counts as unknown."""
    assert record(erased, sale("pi_new", ALICE)) == {"outcome": "unsettled", "reason": "unknown_user"}


# The ledger stays append-only


def test_triggers_after_an_erase_are_enabled(owner: psycopg.Connection) -> None:
    before = execute(owner, TRIGGERS)
    erase(owner, ALICE)
    assert execute(owner, TRIGGERS) == before
    assert {enabled for _, enabled in before} == {"O"}


def test_delete_after_an_erase_is_refused(erased: psycopg.Connection) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        erased.execute("delete from public.transactions")
    assert balance(erased, BOB) == 90


@pytest.fixture
def blocked_erase(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection. A table of the app references Alice's users row, so the last step of an erase fails."""
    owner.execute("create table public.videos (user_id uuid references public.users (id))")
    owner.execute("insert into public.videos values (%s)", [ALICE])
    return owner


def test_failed_erase_changes_nothing(blocked_erase: psycopg.Connection) -> None:
    """It fails at the last step, the delete of the users row."""
    before = contents(blocked_erase)
    with pytest.raises(errors.ForeignKeyViolation):
        erase(blocked_erase, ALICE)
    assert contents(blocked_erase) == before


def test_delete_after_a_failed_erase_is_refused(blocked_erase: psycopg.Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        erase(blocked_erase, ALICE)
    with pytest.raises(errors.InsufficientPrivilege):
        blocked_erase.execute("delete from public.transactions")


def test_delete_in_the_transaction_of_a_failed_erase_is_refused(blocked_erase: psycopg.Connection) -> None:
    with blocked_erase.transaction():
        with pytest.raises(errors.ForeignKeyViolation), blocked_erase.transaction():
            erase(blocked_erase, ALICE)
        with pytest.raises(errors.InsufficientPrivilege), blocked_erase.transaction():
            blocked_erase.execute("delete from public.transactions")


def test_delete_during_an_erase_waits_and_is_refused(owner: psycopg.Connection, waiting: Waiting) -> None:
    with owner.transaction():
        erase(owner, ALICE)
        deleting = waiting("delete from public.transactions")
    with pytest.raises(errors.InsufficientPrivilege):
        deleting.result(TIMEOUT)


# Concurrency


def test_erase_during_other_users_purchases_loses_none(database: Database, owner: psycopg.Connection) -> None:
    start = Barrier(WRITERS + 1)

    def buy(writer: int) -> None:
        with connected(database, "service_role") as worker:
            start.wait()
            for number in range(SALES_EACH):
                record(worker, sale(f"pi_{writer}_{number}", BOB, credits=1))

    with ThreadPoolExecutor(WRITERS) as writers:
        done = writers.map(buy, range(WRITERS))
        start.wait()
        erase(owner, ALICE)
        list(done)
    assert balance(owner, BOB) == 90 + WRITERS * SALES_EACH


def test_erase_after_waiting_for_a_purchase_leaves_its_tombstone(
    database: Database, owner: psycopg.Connection, waiting: Waiting
) -> None:
    with psycopg.connect(database.admin_url) as worker:
        record(worker, sale("pi_late", ALICE))
        erasing = waiting("select billing.erase_user(%s)", ALICE)
    erasing.result(TIMEOUT)
    assert record(owner, sale("pi_late", ALICE)) == DUPLICATE


@pytest.mark.parametrize("payment_id", ["pi_a", "pi_late"])
def test_sale_after_waiting_for_an_erase_stores_nothing(
    owner: psycopg.Connection, waiting: Waiting, payment_id: str
) -> None:
    deliveries = json.dumps([{"event_id": "evt_late", "facts": [sale(payment_id, ALICE)]}])
    with owner.transaction():
        erase(owner, ALICE)
        before = contents(owner)
        recording = waiting("select billing.record(%s)", deliveries)
    recording.result(TIMEOUT)
    assert contents(owner) == before
