"""Unit tests run without a database and without a network."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketBlockedError


def test_network_socket_is_blocked() -> None:
    with pytest.raises((SocketBlockedError, UserWarning), match="tried to use socket"):
        socket.create_connection(("127.0.0.1", 1))


@pytest.mark.parametrize("fixture", ["database", "empty_database", "shared_database", "admin", "ledger", "buyer"])
def test_database_fixture_fails(request: pytest.FixtureRequest, fixture: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="must not need a database"):
        request.getfixturevalue(fixture)
