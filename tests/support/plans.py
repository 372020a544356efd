"""What a statement reads: the counters of its transaction."""

from __future__ import annotations

from typing import Any

import psycopg

from support.databases import Database
from webhook.ledger.queries import query


def reads(database: Database, name: str, parameters: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the sequential scans and the rows read of each table, those of functions included."""
    with psycopg.connect(database.superuser_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("set local role service_role")
        connection.execute(query(name), parameters)
        rows = connection.execute(
            "select relname, seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
            " where schemaname in ('public', 'billing')"
        ).fetchall()
    return {table: (scans, read) for table, scans, read in rows}
