"""The queries of `webhook explain` on a filled database: none reads a whole table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from support.databases import Database, Server
from support.plans import reads
from support.project import SQL

ROWS = 20_000
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
USER = "00000000-0000-4000-8000-000000000001"
BUSY = "00000000-0000-4000-8000-000000000002"
MOST_ROWS = 1500
"""Rows that one query may read of all tables together: some pages of 100."""

FILL = f"""
insert into auth.users (id, email)
select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n || '@example.com'
from generate_series(1, {ROWS}) as n;

insert into public.transactions (id, user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
select
    ('11111111-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, u.id, 100, 'PURCHASE', 'pi_' || n, 'pi_' || n, 1000,
    'usd', 'evt_' || n
from generate_series(1, {ROWS}) as n
join public.users as u on u.id = ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid;

insert into public.transactions (user_id, amount, type, created_at)
select '{BUSY}', 1, 'REFUND', now() - n * interval '1 minute'
from generate_series(1, {ROWS}) as n;

insert into billing.sales
    (payment_id, version, user_id, credits, money_amount, currency, paid, subscription_id, customer_id)
select
    'pi_' || n, 1, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 100, 1000, 'usd', n % 100 <> 0,
    'sub_' || n, 'cus_' || n % 1000
from generate_series(1, {ROWS}) as n;

insert into billing.reversals (reversal_id, version, payment_id, money_amount, currency, event_id)
select 're_' || n, 1, 'pi_' || n, 100, 'usd', 'evt_re_' || n
from generate_series(1, {ROWS}) as n
where n % 10 <> 1;

insert into billing.payment_links (invoice_id, payment_id)
select 'in_' || n, 'pi_' || n
from generate_series(1, {ROWS}) as n;

insert into billing.claims (subject_id, user_id, level, customer_id)
select 'sub_' || n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 4, 'cus_' || n % 1000
from generate_series(1, {ROWS}) as n;

insert into billing.parked_events
    (event_id, event_type, reason, payment_id, user_reference, payer_email, payload, resolved_at, resolution)
select
    'evt_parked_' || n, 'checkout.session.completed', 'unknown_user', 'pi_parked_' || n,
    case when n % 2 = 0 then '99999999-0000-4000-8000-' || lpad(n::text, 12, '0') end,
    case when n % 2 = 0 then 'payer' || n || '@example.com' end,
    case when n % 2 = 0 then ('{{"id": "cs_' || n || '", "customer": "cus_parked_' || n || '"}}')::json end,
    case when n % 2 = 1 then now() end, case when n % 2 = 1 then 'settled' end
from generate_series(1, {ROWS}) as n;

insert into billing.operator_actions (id, action, subject, by, channel, login, reason)
select gen_random_uuid(), 'discard', 'evt_parked_' || n, 'ann', 'cli', 'ann', 'a test'
from generate_series(1, {ROWS}) as n;

insert into billing.assignments (number, payment_id, credits)
select n, 'pi_' || n, 5
from generate_series(1, {ROWS}) as n;

insert into public.generation_holds (id, user_id, amount, expires_at)
select
    ('22222222-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
    ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 5, now() + interval '1 hour'
from generate_series(1, {ROWS}) as n;

insert into billing.erased_users (user_hash)
select sha256(n::text::bytea)
from generate_series(1, {ROWS}) as n
"""

PAGE = {"before_time": None, "before_id": None, "page_size": 101}
PURCHASE = {
    "at": NOON,
    "amount": 100,
    "money_amount": 1000,
    "currency": "usd",
    "payment_ids": ["pi_1"],
}
CALLS: list[tuple[str, dict[str, Any]]] = [
    *(("explain_sale", {"payment_id": each}) for each in ("pi_1", "in_2", "pi_parked_1", "pi_parked_2", "pi_none")),
    *(("explain_user", {"user_id": each}) for each in (USER, BUSY)),
    *(("explain_user_rows", {"user_id": each} | PAGE) for each in (USER, BUSY)),
    ("explain_user_rows", {"user_id": BUSY, "before_time": NOON, "before_id": USER, "page_size": 101}),
    *(("explain_nearby_purchases", {"user_id": each} | PURCHASE) for each in (USER,)),
    *(
        ("explain_find", {"id": each})
        for each in ("pi_1", "in_2", "re_2", "sub_3", "cus_4", "evt_parked_1", "pi_parked_2", "cs_none")
    ),
    *(
        ("explain_find_uuid", {"id": each})
        for each in (USER, "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001")
    ),
    ("explain_find_email", {"email": "USER7@example.com"}),
    ("explain_find_email", {"email": "payer8@example.com"}),
    ("explain_find", {"id": "cs_8"}),
    *(("explain_generation", {"id": each}) for each in (USER, "22222222-0000-4000-8000-000000000001")),
    ("explain_event", {"event_id": "evt_parked_1"}),
]


@pytest.fixture(scope="module")
def filled(server: Server, template: str) -> Iterator[Database]:
    """A database with tens of thousands of rows in each table that grows, and statistics of them."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url, autocommit=True) as owner:
            owner.execute(FILL)
            owner.execute("analyze")
        yield database


@pytest.mark.parametrize(("name", "parameters"), CALLS, ids=str)
def test_query_reads_no_whole_table(filled: Database, name: str, parameters: dict[str, Any]) -> None:
    counts = reads(filled, name, parameters)
    assert {table: scans for table, (scans, _) in counts.items() if scans} == {}
    assert sum(read for _, read in counts.values()) < MOST_ROWS


def test_whole_tables_would_be_noticed(filled: Database) -> None:
    """The counters include reads inside functions."""
    with psycopg.connect(filled.admin_url, autocommit=True) as owner:
        owner.execute(
            "create function pg_temp.whole() returns bigint language sql as 'select count(*) from billing.sales'"
        )
        with owner.transaction():
            owner.execute("select pg_temp.whole()")
            [(scans,)] = owner.execute(
                "select seq_scan from pg_stat_xact_user_tables where relname = 'sales'"
            ).fetchall()
    assert scans == 1


def test_each_query_of_explain_is_checked() -> None:
    assert {name for name, _ in CALLS} == {file.stem for file in (SQL / "queries").glob("explain_*.sql")}


def test_every_growing_table_is_filled(filled: Database) -> None:
    with psycopg.connect(filled.admin_url) as owner:
        small = owner.execute(
            "select relname from pg_class join pg_namespace as n on n.oid = relnamespace"
            " where nspname in ('public', 'billing') and relkind = 'r' and reltuples < 1000"
        ).fetchall()
    assert {name for (name,) in small} <= {"schema_migrations", "reconciliations"}
