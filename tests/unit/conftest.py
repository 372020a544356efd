"""Unit tests need no database, and no network but what a test marked ``enable_socket`` serves on loopback."""

from __future__ import annotations

from typing import NoReturn

import pytest
from pytest_socket import disable_socket


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse sockets of the network in this process."""
    if not item.get_closest_marker("enable_socket"):
        disable_socket(allow_unix_socket=True)


@pytest.fixture(scope="session")
def server() -> NoReturn:
    """Fail: every fixture of a database depends on this one."""
    pytest.fail("a unit test must not need a database: move it to tests/sql, tests/worker or tests/commands")
