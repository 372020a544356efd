"""Unit tests use no database and no network, except loopback sockets in tests marked ``enable_socket``."""

from __future__ import annotations

from typing import NoReturn

import pytest
from pytest_socket import disable_socket


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block network sockets in this process."""
    if not item.get_closest_marker("enable_socket"):
        disable_socket(allow_unix_socket=True)


@pytest.fixture(scope="session")
def server() -> NoReturn:
    """Fail, because every database fixture depends on this one."""
    pytest.fail("a unit test must not need a database: move it to tests/sql, tests/worker or tests/commands")
