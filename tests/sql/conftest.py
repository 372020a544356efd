"""A database that the read-only tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.databases import Database, Server
from support.roles import open_accounts


@pytest.fixture(scope="module")
def bank(server: Server, template: str) -> Iterator[Database]:
    """A database in which Alice has bought 100 credits and Bob 50. Tests must not change it."""
    with server.new_database(template) as database:
        with psycopg.connect(database.admin_url) as owner:
            open_accounts(owner)
        yield database
