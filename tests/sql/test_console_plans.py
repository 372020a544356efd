"""The queries of the console on a filled database: none reads a whole table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from support.databases import Database, Server
from support.plans import reads
from support.project import SQL
from webhook.remedies import REMEDIES

ROWS = 20_000
USER = "00000000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
A_PAGE = 500
"""Rows that a page may read: some lists of 100."""

FILL = f"""
insert into auth.users (id) values ('{USER}');

insert into public.transactions (user_id, amount, type, created_at)
select '{USER}', 1, 'REFUND', '{NOW}'::timestamptz - {ROWS} * interval '1 hour' + n * interval '1 hour'
from generate_series(1, {ROWS}) as n;

insert into billing.parked_events
    (event_id, event_type, reason, payload, parked_at, resolved_at, resolution, discarded_by, discard_reason)
select
    'evt_' || n, 'invoice.paid', case when n % 20 = 0 then 'missing_user' else 'unknown_user' end, '{{}}'::json,
    '{NOW}'::timestamptz - n * interval '1 minute',
    case when n % 2 = 1 then '{NOW}'::timestamptz - n * interval '1 minute' end,
    case when n % 2 = 1 then 'discarded' end,
    case when n % 2 = 1 then 'ann' end,
    case when n % 2 = 1 then 'a test' end
from generate_series(1, {ROWS}) as n;

insert into billing.reconciliations (since, until, finished_at, covered_until)
select now() - interval '1 hour', now(), now(), now()
from generate_series(1, {ROWS}) as n
"""

FIRST = {"after_time": None, "after_id": None}
LAST = {"after_time": NOW - timedelta(minutes=10), "after_id": "evt_10"}
CALLS: list[tuple[str, dict[str, Any], int]] = [
    ("console_health", {"reasons": [*REMEDIES], "most": 1000}, 3000),
    ("console_daily_credits", {"since": NOW - timedelta(days=30), "until": LATER}, ROWS // 2),
    *(
        ("console_parked", {"reason": reason, "until": None, "page_size": 101} | position, A_PAGE)
        for reason in (None, "missing_user", "unknown_user", "unreadable")
        for position in (FIRST, LAST)
    ),
    *(("console_discarded", {"page_size": 101} | position, A_PAGE) for position in (FIRST, LAST)),
    *(
        ("console_count_parked", {"reason": reason, "until": until, "most": 1000} | position, 2500)
        for reason in (None, "unknown_user", "unreadable")
        for position, until in ((FIRST, None), (LAST, NOW))
    ),
    *(
        ("console_parked", {"reason": reason, "until": NOW, "page_size": 20} | position, A_PAGE)
        for reason in (None, "missing_user")
        for position in (FIRST, LAST)
    ),
]


@pytest.fixture(scope="module")
def filled(server: Server, template: str) -> Iterator[Database]:
    """A database with years of ledger rows, thousands of parked events, and statistics of them."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url, autocommit=True) as owner:
            owner.execute(FILL)
            owner.execute("vacuum analyze")
        yield database


@pytest.mark.parametrize(("name", "parameters", "most_rows"), CALLS, ids=str)
def test_query_of_the_console_reads_no_whole_table(
    filled: Database, name: str, parameters: dict[str, Any], most_rows: int
) -> None:
    counts = reads(filled, name, parameters)
    assert {table: scans for table, (scans, _) in counts.items() if scans} == {}
    assert sum(read for _, read in counts.values()) < most_rows


def test_each_query_of_the_console_is_checked() -> None:
    assert {name for name, _, _ in CALLS} == {file.stem for file in (SQL / "queries").glob("console_*.sql")}
