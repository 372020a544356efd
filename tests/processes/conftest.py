"""The superuser's connection to the database that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.databases import Database


@pytest.fixture(scope="module")
def superuser(shared_database: Database) -> Iterator[psycopg.Connection]:
    """An autocommit connection of the superuser."""
    with psycopg.connect(shared_database.superuser_url, autocommit=True) as connection:
        yield connection
