"""Connections that fail: the message gives the cause that an operator can act on."""

from __future__ import annotations

import pytest
from psycopg import Error, OperationalError, errors

from webhook.ledger.connect_errors import message_of, remedy_of

IPV6 = 'connection failed: connection to server at "2a05:d014::1", port 5432 failed: {}\n\tIs the server running?'
TO_POOLER = "use the session pooler's URL (port 5432)"


@pytest.mark.parametrize(
    "cause",
    [
        "Network is unreachable",
        "Cannot assign requested address",
        "could not create socket: Address family not supported by protocol",
    ],
)
def test_ipv6_database_without_ipv6_points_to_the_pooler(cause: str) -> None:
    """Supabase's direct connections have only IPv6 addresses."""
    assert message_of(OperationalError(IPV6.format(cause))).endswith(TO_POOLER)


def test_host_without_ipv4_address_points_to_the_pooler() -> None:
    """Some resolvers leave out IPv6 addresses that this machine cannot use."""
    message = "failed to resolve host 'db.abc.supabase.co': [Errno -5] No address associated with hostname"
    assert message_of(OperationalError(message)).endswith(TO_POOLER)


@pytest.mark.parametrize(
    "message",
    [
        'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused',
        'connection failed: connection to server at "10.0.0.1", port 5432 failed: Network is unreachable',
        IPV6.format("Connection refused"),
        IPV6.format("Network is unreachable") + 'connection to server at "10.0.0.1", port 5432 failed: timeout',
        "failed to resolve host 'nosuch.invalid': [Errno -2] Name or service not known",
    ],
)
def test_other_failure_keeps_its_message(message: str) -> None:
    """With an IPv4 address, the failure of that one is the cause."""
    assert message_of(OperationalError(message)) == " ".join(message.split())


def test_unknown_login_of_a_pooler_names_its_form() -> None:
    message = 'connection to server at "3.1.2.4", port 6543 failed: FATAL:  Tenant or user not found'
    assert "<role>.<project>" in message_of(OperationalError(message))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.InvalidSchemaName('schema "billing" does not exist'), ": run webhook migrate"),
        (errors.UndefinedFunction("function billing.record(jsonb) does not exist"), ": run webhook migrate"),
        (
            errors.InvalidParameterValue('role "service_role" does not exist'),
            ": no role service_role: run webhook migrate --plain-postgres",
        ),
        (errors.InvalidParameterValue("another value"), ""),
        (errors.InsufficientPrivilege("permission denied"), ""),
    ],
)
def test_missing_schema_or_role_points_to_migrate(error: Error, remedy: str) -> None:
    assert remedy_of(error) == remedy
