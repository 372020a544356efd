"""billing.erase_user(): the one deliberate way to delete ledger rows, and the tombstones that it leaves."""

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
from support.roles import ALICE, BOB, NOBODY, add, balance, connected, contents, execute, record, refund, sale, sign_up

Waiting = Callable[..., Future[None]]

TIMEOUT = 10
DUPLICATE = {"outcome": "duplicate"}
WRITERS = 8
SALES_EACH = 5

TRIGGERS = "select tgname, tgenabled from pg_trigger where tgrelid = 'public.transactions'::regclass order by 1"


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection. Alice bought twice, had a bit refunded and spent 7 credits; Bob bought once."""
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


def park(connection: psycopg.Connection, event_id: str, payload: dict[str, Any], payment_id: str | None = None) -> None:
    arguments = [event_id, "some.type", "missing_credits", payment_id, json.dumps(payload)]
    connection.execute("select billing.park(%s, %s, %s, %s, %s)", arguments)


def of_bob(connection: psycopg.Connection) -> dict[str, list[Any]]:
    """Every row that names Bob or his sale."""
    return {
        table: [row for row in rows if BOB in str(row) or "pi_b" in str(row)]
        for table, rows in contents(connection).items()
    }


@pytest.fixture
def waiting(database: Database) -> Iterator[Waiting]:
    """Starts a statement of the owner in a thread, and returns once it waits for a lock."""
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


# Who may


@pytest.mark.parametrize("role", ["anon", "authenticated", "worker", "service_role", "supabase_auth_admin"])
def test_erase_by_anyone_but_the_owner_is_refused(database: Database, owner: psycopg.Connection, role: str) -> None:
    before = contents(owner)
    with connected(database, role, user=ALICE) as attacker, pytest.raises(errors.InsufficientPrivilege):
        erase(attacker, ALICE)
    assert contents(owner) == before


def test_erase_by_service_role_that_was_granted_it_is_still_refused(
    database: Database, owner: psycopg.Connection
) -> None:
    owner.execute("grant execute on function billing.erase_user(uuid) to service_role")
    before = contents(owner)
    with connected(database, "service_role") as attacker, pytest.raises(errors.InsufficientPrivilege):
        erase(attacker, ALICE)
    assert contents(owner) == before


# What goes


@pytest.mark.parametrize(("table", "column"), [("transactions", "user_id"), ("users", "id")])
def test_erase_of_a_user_with_history_leaves_no_row_in_public(
    erased: psycopg.Connection, table: str, column: str
) -> None:
    assert execute(erased, f"select * from public.{table} where {column} = '{ALICE}'") == []


def test_erase_of_a_user_leaves_its_id_nowhere_but_in_auth(erased: psycopg.Connection) -> None:
    tables = contents(erased)
    assert [name for name, rows in tables.items() if ALICE in str(rows)] == ["auth.users"]


def test_erase_of_a_user_leaves_bare_tombstones_of_its_payments(erased: psycopg.Connection) -> None:
    assert execute(
        erased,
        """
        select distinct payment_id, num_nonnulls(user_id, credits, money_amount, currency)
        from billing.sales where erased_at is not null order by 1
        """,
    ) == [("in_a", 0), ("pi_a", 0), ("pi_a2", 0)]


def test_erase_of_a_user_takes_its_reversals(erased: psycopg.Connection) -> None:
    assert execute(erased, "select reversal_id from billing.reversals") == [("re_b",)]


@pytest.mark.parametrize(
    "payload",
    [
        {"client_reference_id": ALICE},
        {"data": {"object": {"metadata": {"user_id": ALICE.upper()}}}},
    ],
    ids=["reference", "metadata"],
)
def test_erase_takes_the_parked_events_that_name_the_user(owner: psycopg.Connection, payload: dict[str, Any]) -> None:
    park(owner, "evt_parked", payload)
    erase(owner, ALICE)
    assert execute(owner, "select * from billing.parked_events") == []


def test_erase_takes_the_parked_events_of_the_users_payments(owner: psycopg.Connection) -> None:
    park(owner, "evt_parked", {"email": "a@example.com"}, payment_id="pi_a")
    erase(owner, ALICE)
    assert execute(owner, "select * from billing.parked_events") == []


def test_erase_leaves_the_parked_events_of_others(owner: psycopg.Connection) -> None:
    park(owner, "evt_parked", {"client_reference_id": BOB}, payment_id="pi_b2")
    erase(owner, ALICE)
    assert execute(owner, "select event_id from billing.parked_events") == [("evt_parked",)]


def test_erase_of_a_user_who_never_paid_takes_its_sale_facts(owner: psycopg.Connection) -> None:
    sign_up(owner, NOBODY)
    record(owner, sale("pi_n", NOBODY, paid=False))
    erase(owner, NOBODY)
    assert record(owner, sale("pi_n", NOBODY)) == DUPLICATE


def test_erase_of_an_unknown_user_changes_nothing(owner: psycopg.Connection) -> None:
    before = contents(owner)
    erase(owner, NOBODY)
    assert contents(owner) == before


def test_erase_twice_changes_nothing_more(erased: psycopg.Connection) -> None:
    before = contents(erased)
    erase(erased, ALICE)
    assert contents(erased) == before


def test_account_of_an_erased_user_can_be_deleted(erased: psycopg.Connection) -> None:
    deleted = execute(erased, f"delete from auth.users where id = '{ALICE}' returning id::text")
    assert deleted == [(ALICE,)]


# What stays


def test_erase_of_a_user_leaves_everything_of_others(owner: psycopg.Connection) -> None:
    before = of_bob(owner)
    erase(owner, ALICE)
    assert of_bob(owner) == before
    assert balance(owner, BOB) == 90


def test_refund_of_another_user_after_an_erase_is_settled(erased: psycopg.Connection) -> None:
    assert record(erased, refund("re_b2", "pi_b", 400)) == {"outcome": "recorded"}
    assert balance(erased, BOB) == 50


@pytest.fixture
def handed_on(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; a sale's session named Alice, its payment Bob: 190 credits are his."""
    record(owner, sale("pi_ab", ALICE), event_id="evt_ab1")
    record(owner, sale("pi_ab", BOB, version=3), event_id="evt_ab2")
    return owner


def test_erase_of_a_sales_first_user_leaves_it_the_others(handed_on: psycopg.Connection) -> None:
    before = balance(handed_on, BOB)
    erase(handed_on, ALICE)
    assert (before, balance(handed_on, BOB)) == (190, 190)


def test_erase_of_a_sales_first_user_leaves_no_trace_of_them(handed_on: psycopg.Connection) -> None:
    erase(handed_on, ALICE)
    assert [name for name, rows in contents(handed_on).items() if ALICE in str(rows)] == ["auth.users"]


def test_redelivery_of_a_sale_whose_first_user_was_erased_is_a_duplicate(handed_on: psycopg.Connection) -> None:
    erase(handed_on, ALICE)
    assert record(handed_on, sale("pi_ab", BOB, version=3), event_id="evt_ab2") == DUPLICATE
    assert balance(handed_on, BOB) == 190


def test_redelivery_that_names_an_erased_first_user_stores_nothing(handed_on: psycopg.Connection) -> None:
    erase(handed_on, ALICE)
    before = contents(handed_on)
    record(handed_on, sale("pi_ab", ALICE), event_id="evt_ab1")
    assert contents(handed_on) == before


def test_refund_of_a_sale_whose_first_user_was_erased_takes_from_the_other(handed_on: psycopg.Connection) -> None:
    erase(handed_on, ALICE)
    assert record(handed_on, refund("re_ab", "pi_ab", 500)) == {"outcome": "recorded"}
    assert balance(handed_on, BOB) == 140


def test_erase_of_a_sales_second_user_leaves_the_first_untouched(handed_on: psycopg.Connection) -> None:
    before = balance(handed_on, ALICE)
    erase(handed_on, BOB)
    assert balance(handed_on, ALICE) == before
    assert record(handed_on, sale("pi_ab", ALICE)) == DUPLICATE


# Tombstones


def customer(user: str) -> dict[str, str]:
    """Who a Stripe customer is, as a subscription's session tells it."""
    return {"kind": "customer", "customer_id": "cus_a", "user_id": user}


def test_redelivery_of_who_the_customer_of_an_erased_user_was_is_a_duplicate_that_stores_nothing(
    owner: psycopg.Connection,
) -> None:
    record(owner, customer(ALICE))
    erase(owner, ALICE)
    before = contents(owner)
    assert record(owner, customer(ALICE)) == DUPLICATE
    assert contents(owner) == before


def test_customer_of_a_user_who_never_was_is_not_taken_for_erased(erased: psycopg.Connection) -> None:
    assert record(erased, customer(NOBODY)) == {"outcome": "unsettled", "reason": "unknown_user"}


def test_payment_made_by_an_erased_user_waits_for_somebody(erased: psycopg.Connection) -> None:
    """It is money that nobody has looked at yet."""
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


def test_link_to_an_erased_sale_stores_the_ids_alone_so_that_they_are_erased_too(erased: psycopg.Connection) -> None:
    before = contents(erased)
    link = {"kind": "link", "id": "cs_new", "invoice_id": "in_a", "payment_id": "pi_new"}
    assert record(erased, link, sale("pi_new", ALICE)) == DUPLICATE
    assert record(erased, refund("re_new", "pi_new", 1000)) == DUPLICATE
    after = contents(erased)
    assert [name for name in before if before[name] != after[name]] == ["billing.payment_links"]


def test_delivery_about_an_erased_sale_after_the_account_went_stores_nothing(erased: psycopg.Connection) -> None:
    erased.execute("delete from auth.users where id = %s", [ALICE])
    before = contents(erased)
    assert record(erased, sale("pi_a", ALICE)) == DUPLICATE
    assert contents(erased) == before


def test_new_sale_of_an_erased_user_is_of_an_unknown_user(erased: psycopg.Connection) -> None:
    assert record(erased, sale("pi_new", ALICE)) == {"outcome": "unsettled", "reason": "unknown_user"}


# The ledger stays append-only


def test_triggers_after_an_erase_are_on(owner: psycopg.Connection) -> None:
    before = execute(owner, TRIGGERS)
    erase(owner, ALICE)
    assert execute(owner, TRIGGERS) == before
    assert {enabled for _, enabled in before} == {"O"}


def test_deleting_after_an_erase_is_refused(erased: psycopg.Connection) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        erased.execute("delete from public.transactions")
    assert balance(erased, BOB) == 90


@pytest.fixture
def holding(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; a table of the app's own holds Alice's users row, which is the last to go."""
    owner.execute("create table public.videos (user_id uuid references public.users (id))")
    owner.execute("insert into public.videos values (%s)", [ALICE])
    return owner


def test_erase_that_fails_at_the_end_changes_nothing(holding: psycopg.Connection) -> None:
    before = contents(holding)
    with pytest.raises(errors.ForeignKeyViolation):
        erase(holding, ALICE)
    assert contents(holding) == before


def test_deleting_after_an_erase_that_failed_is_refused(holding: psycopg.Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        erase(holding, ALICE)
    with pytest.raises(errors.InsufficientPrivilege):
        holding.execute("delete from public.transactions")


def test_deleting_in_one_transaction_with_an_erase_that_failed_is_refused(holding: psycopg.Connection) -> None:
    with holding.transaction():
        with pytest.raises(errors.ForeignKeyViolation), holding.transaction():
            erase(holding, ALICE)
        with pytest.raises(errors.InsufficientPrivilege), holding.transaction():
            holding.execute("delete from public.transactions")


def test_deleting_beside_an_uncommitted_erase_waits_and_is_refused(owner: psycopg.Connection, waiting: Waiting) -> None:
    with owner.transaction():
        erase(owner, ALICE)
        deleting = waiting("delete from public.transactions")
    with pytest.raises(errors.InsufficientPrivilege):
        deleting.result(TIMEOUT)


# Beside others


def test_erase_beside_purchases_of_others_loses_none_of_them(database: Database, owner: psycopg.Connection) -> None:
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


def test_erase_that_waited_for_a_purchase_leaves_its_tombstone(
    database: Database, owner: psycopg.Connection, waiting: Waiting
) -> None:
    with psycopg.connect(database.admin_url) as worker:
        record(worker, sale("pi_late", ALICE))
        erasing = waiting("select billing.erase_user(%s)", ALICE)
    erasing.result(TIMEOUT)
    assert record(owner, sale("pi_late", ALICE)) == DUPLICATE


@pytest.mark.parametrize("payment_id", ["pi_a", "pi_late"])
def test_sale_that_waited_for_an_erase_stores_nothing(
    owner: psycopg.Connection, waiting: Waiting, payment_id: str
) -> None:
    deliveries = json.dumps([{"event_id": "evt_late", "facts": [sale(payment_id, ALICE)]}])
    with owner.transaction():
        erase(owner, ALICE)
        before = contents(owner)
        recording = waiting("select billing.record(%s)", deliveries)
    recording.result(TIMEOUT)
    assert contents(owner) == before
