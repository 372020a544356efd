"""An upgrade from the released schema to a later one keeps balances and permissions, and the worker keeps running.

The released schema is all of ``sql/``. A migration in ``tests/sql/later`` stands for a later release.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support import worker
from support.databases import Database, Server
from support.generations import authorize, refund_generation
from support.ledger_queries import amounts, new_user, wrong_balances
from support.privileges import privileges
from support.project import PROJECT
from support.roles import ALICE, BOB, CAROL, add, balance, connected, execute, record, refund, sale, sign_up
from support.waiting import WAIT_TIMEOUT
from webhook.ledger import migrate as migrate_module
from webhook.ledger.migrate import MigrationError, migrate
from webhook.ledger.schema import sql_folder

RELEASED = sorted(sql_folder().glob("*.sql"))
LATER = sorted((PROJECT / "tests" / "sql" / "later").glob("*.sql"))
GENERATION, FAILED = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"

# The locks of later migrations on tables that deliveries use. A lock lasts until the end of its migration, so the
# migration must do no work that grows with the ledger.
LOCKS = {
    # A column without a default: no row is read or written.
    "20270101000001": {"public.transactions: AccessExclusiveLock"},
}
BLOCKING_STATEMENTS = (
    "lock table public.users in access exclusive mode",
    "update public.users set email = lower(email)",
    "do $$begin perform from public.users for no key update; end$$",
    "alter table public.transactions disable trigger transactions_append_only",
    "create index on billing.reversals (currency)",
)

Facts = list[dict[str, Any]]


def link(invoice_id: str, payment_id: str) -> dict[str, Any]:
    return {"kind": "link", "id": invoice_id, "invoice_id": invoice_id, "payment_id": payment_id}


def customer_sale(payment_id: str) -> dict[str, Any]:
    """Return the sale of an invoice that names only its customer."""
    return sale(payment_id, None, version=2, customer_id="cus_1")


# Every kind of fact, and every way in which it settles or stays unsettled.
DELIVERIES: dict[str, Facts] = {
    "bought": [sale("pi_a", ALICE, credits=1000)],
    "bought, then its PaymentIntent": [sale("pi_b", BOB), sale("pi_b", BOB, version=3)],
    "not paid yet": [sale("pi_unpaid", ALICE, paid=False)],
    "nothing to pay": [sale("cs_free", BOB, money_amount=0)],
    "refunded in part": [refund("re_a", "pi_a", 333)],
    "refunded before its sale": [refund("re_early", "pi_early", 500)],
    "sale after its refund": [sale("pi_early", ALICE)],
    "refund that failed": [refund("re_failed", "pi_b", 1000), refund("re_failed", "pi_b", 0) | {"version": 2}],
    "dispute, half of it reinstated": [refund("du_a", "pi_a", 200) | {"version": 2}],
    "dispute closed": [refund("du_a", "pi_a", 100) | {"version": 5}],
    "refund without a sale": [refund("re_stranger", "pi_stranger", 100)],
    "invoice": [sale("in_a", ALICE, version=2, credits=50)],
    "invoice refunded by its payment": [refund("re_in", "pi_in", 1000), link("in_a", "pi_in")],
    "two sources of one sale": [sale("pi_merged", ALICE, credits=40), sale("in_merged", ALICE, version=2)],
    "link between them": [link("in_merged", "pi_merged")],
    "sale of a customer": [customer_sale("in_customer")],
    "user of the customer": [{"kind": "claim", "customer_id": "cus_1", "user_id": BOB, "level": 1}],
    "refunded in full": [sale("pi_gone", BOB), refund("re_gone", "pi_gone", 1000)],
}


@pytest.fixture
def apply(empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that applies these migrations in addition to those applied before."""
    folder = tmp_path / "sql"
    folder.mkdir()
    monkeypatch.setattr(migrate_module, "sql_folder", lambda: folder)

    def apply(*files: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        migrate(empty_database.admin_url)

    return apply


@pytest.fixture
def owner(empty_database: Database, apply: Callable[..., None]) -> Iterator[psycopg.Connection]:
    """The owner's connection to a database of the released schema, with some history."""
    apply(*RELEASED)
    with psycopg.connect(empty_database.admin_url, autocommit=True) as owner:
        sign_up(owner, ALICE, BOB, CAROL)
        record(owner, sale("pi_erased", CAROL), refund("re_erased", "pi_erased", 10))
        owner.execute("select billing.erase_user(%s)", [CAROL])
        for event_id in ("evt_open", "evt_settled"):
            owner.execute("select billing.park(%s, 'a.type', 'missing_credits', null, '{}')", [event_id])
        deliver_all(empty_database)
        record(owner, sale("pi_late", BOB, credits=7), event_id="evt_settled")
        add(owner, ALICE, -700, type="GENERATION", id=GENERATION)
        add(owner, BOB, -500, type="GENERATION", id=FAILED)
        add(owner, BOB, 500, type="REFUND", refunds=FAILED)
        yield owner


def deliver_all(database: Database) -> list[str]:
    """Record all deliveries as the released worker does, and return the outcomes."""
    with connected(database, "service_role") as old_worker:
        return [
            record(old_worker, *facts, event_id=f"evt_{number}")["outcome"]
            for number, facts in enumerate(DELIVERIES.values())
        ]


def books(owner: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return every ledger row and user without null columns, so that a new column does not count."""
    return execute(
        owner,
        """
        select jsonb_strip_nulls(to_jsonb(line)) from public.transactions as line
        union all
        select jsonb_strip_nulls(to_jsonb(line)) from public.users as line
        order by 1
        """,
    )


def test_upgrade_keeps_every_row_and_balance(owner: psycopg.Connection, apply: Callable[..., None]) -> None:
    """Every balance is also still the sum of its rows."""
    before = books(owner)
    apply(*LATER)
    assert books(owner) == before
    assert (balance(owner, ALICE), balance(owner, BOB)) == (17, 307)
    assert wrong_balances(owner) == []


def test_upgrade_keeps_every_fact(
    empty_database: Database, owner: psycopg.Connection, apply: Callable[..., None]
) -> None:
    """Every redelivery is a duplicate or unsettled, and an erased sale stays erased."""
    apply(*LATER)
    before = books(owner)
    assert {*deliver_all(empty_database)} <= {"duplicate", "unsettled"}
    assert record(owner, sale("pi_erased", CAROL)) == {"outcome": "duplicate"}
    assert books(owner) == before


def test_upgrade_gives_the_privileges_of_a_fresh_install(
    server: Server, empty_template: str, empty_database: Database, owner: psycopg.Connection, apply: Callable[..., None]
) -> None:
    assert owner
    apply(*LATER)
    with server.new_database(empty_template) as fresh:
        migrate(fresh.admin_url)
        assert privileges(empty_database) == privileges(fresh)


def test_balance_from_before_the_upgrade_can_be_spent(owner: psycopg.Connection, apply: Callable[..., None]) -> None:
    """A generation from before the upgrade can be refunded."""
    apply(*LATER)
    assert refund_generation(owner, GENERATION) == 717
    assert authorize(owner, ALICE, 717, "33333333-0000-4000-8000-000000000003") == 0


def test_later_migrations_take_only_the_listed_locks(owner: psycopg.Connection) -> None:
    """LOCKS lists each lock with the reason why no delivery waits long for it."""
    nothing: dict[str, set[str]] = {file.name[:14]: set() for file in LATER}
    assert {file.name[:14]: locks_of(owner, file) for file in LATER} == nothing | LOCKS


@pytest.mark.parametrize("statement", BLOCKING_STATEMENTS)
def test_migration_that_blocks_deliveries_is_detected(
    owner: psycopg.Connection, tmp_path: Path, statement: str
) -> None:
    """Each statement would block deliveries, and squawk does not report it."""
    file = tmp_path / "20270101000000_later.sql"
    file.write_text(statement, encoding="utf-8")
    assert locks_of(owner, file) != set()


def locks_of(owner: psycopg.Connection, file: Path) -> set[str]:
    """Return the locks that a migration takes on existing tables, except those of plain reads."""
    own = "select oid from pg_class where relnamespace::regnamespace::text in ('public', 'billing', 'auth')"
    tables = [oid for (oid,) in execute(owner, f"{own} and relkind = 'r'")]
    with owner.transaction():
        owner.execute(file.read_text(encoding="utf-8"))
        locks = owner.execute(
            """
            select concat(relnamespace::regnamespace, '.', relname, ': ', mode)
            from pg_locks
            join pg_class on pg_class.oid = relation
            where pid = pg_backend_pid() and relation = any (%s) and mode <> 'AccessShareLock'
            """,
            [tables],
        )
        return {lock for (lock,) in locks}


def test_old_worker_still_works_after_each_migration(
    empty_database: Database, owner: psycopg.Connection, apply: Callable[..., None]
) -> None:
    """The calls of the released worker keep their meaning in every later schema."""
    for file in LATER:
        apply(file)
        name = file.name[:14]
        with connected(empty_database, "service_role") as old_worker:
            assert record(old_worker, sale(f"pi_{name}", ALICE)) == {"outcome": "recorded"}
            assert record(old_worker, refund(f"re_{name}", f"pi_{name}", 1000)) == {"outcome": "recorded"}
            assert record(old_worker, sale(f"pi_{name}", ALICE)) == {"outcome": "duplicate"}
            parked = f"select billing.park('evt_{name}', 'a.type', 'missing_user', null, '{{}}')"
            assert execute(old_worker, parked) == [(True,)]
    assert wrong_balances(owner) == []


def test_deliveries_during_the_upgrade_are_all_recorded(
    empty_database: Database, owner: psycopg.Connection, apply: Callable[..., None], tmp_path: Path
) -> None:
    """A running worker returns 200 for every delivery while the schema changes."""
    user, upgraded = new_user(owner), threading.Event()

    def deliver(process: worker.Worker, lane: int) -> list[int]:
        statuses: list[int] = []
        while not upgraded.is_set() or len(statuses) < 5:
            statuses.append(process.deliver(worker.sale(user, f"{lane}_{len(statuses)}", credits=1)).status)
        return statuses

    with worker.working(empty_database.url, tmp_path, until="/healthz") as process, ThreadPoolExecutor(4) as lanes:
        delivering = [lanes.submit(deliver, process, lane) for lane in range(4)]
        try:
            for file in LATER:
                apply(file)
        finally:
            upgraded.set()
        statuses = [status for lane in delivering for status in lane.result(WAIT_TIMEOUT)]
    assert {*statuses} == {200}
    assert amounts(owner, user) == [1] * len(statuses)


def test_upgrade_of_a_locked_ledger_times_out(owner: psycopg.Connection, apply: Callable[..., None]) -> None:
    """A long transaction blocks only the migration, not later deliveries, and the migration can run again."""
    with owner.transaction():
        add(owner, ALICE, 1)
        with pytest.raises(MigrationError, match="lock timeout"):
            apply(*LATER)
    apply()
    assert execute(owner, "select billing.schema_version()") == [(LATER[-1].name[:14],)]
