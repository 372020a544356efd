"""A ledger of two users."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.databases import Database, Server
from support.roles import open_accounts


@pytest.fixture(scope="module")
def bank(server: Server, template: str) -> Iterator[Database]:
    """Alice's and Bob's database, for tests that leave it as it is."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url) as owner:
            open_accounts(owner)
        yield database
