"""Advice for errors of the database whose message alone names a wrong cause."""

from __future__ import annotations

import re

import psycopg
from psycopg.errors import InvalidParameterValue, InvalidSchemaName, UndefinedColumn, UndefinedFunction, UndefinedTable

_ADDRESS = re.compile(r'connection to server at "([^"]+)"')
_UNREACHABLE = (
    "Network is unreachable",
    "Cannot assign requested address",
    "Address family not supported by protocol",
    "No route to host",
)
_NO_ADDRESS = "No address associated with hostname"
"""What a resolver answers that leaves out IPv6 addresses, because this machine has no IPv6."""
_NO_IPV6 = (
    "the database has only an IPv6 address, which this machine cannot reach: use the session pooler's URL (port 5432)"
)
_NO_TENANT = (
    "the pooler does not know this login: its user is <role>.<project>, and its host that of the project's region"
)


def message_of(error: psycopg.Error) -> str:
    """Return the error's message in one line, with advice if the cause is a known one."""
    message = " ".join(str(error).split())
    advice = _advice(message)
    return f"{message}: {advice}" if advice else message


def remedy_of(error: psycopg.Error) -> str:
    """Return the advice for a schema that is missing or older than this code."""
    if isinstance(error, (InvalidSchemaName, UndefinedFunction, UndefinedTable, UndefinedColumn)):
        return ": run webhook migrate"
    # The first statement of every call becomes service_role. Supabase has this role, a plain Postgres only after that.
    if isinstance(error, InvalidParameterValue) and '"service_role"' in str(error):
        return ": no role service_role: run webhook migrate --plain-postgres"
    return ""


def _advice(message: str) -> str | None:
    addresses = _ADDRESS.findall(message)
    is_only_ipv6 = bool(addresses) and all(":" in address for address in addresses)
    if (is_only_ipv6 and any(each in message for each in _UNREACHABLE)) or _NO_ADDRESS in message:
        return _NO_IPV6
    return _NO_TENANT if "Tenant or user not found" in message else None
