"""What ``webhook doctor`` reports about the console."""

from __future__ import annotations

import hashlib

import pytest

from support.commands import invoke
from support.databases import Database
from support.ports import free_port

DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
TOKENS = f"ann:operator:{DIGESTS[0]},ann:operator:{DIGESTS[1]},bob:viewer:{DIGESTS[2]}"


def findings(database: Database, **variables: str) -> list[str]:
    """Return the lines that name the console, without their columns."""
    unset = {"STRIPE_API_KEY": "", "OPERATOR_DATABASE_URL": "", "CONSOLE_TOKENS": "", "CONSOLE_MAX_CREDITS": ""}
    settings = {"DATABASE_URL": database.url, "STRIPE_WEBHOOK_SECRET": "whsec_1", "STRIPE_LIVEMODE": "false"}
    done = invoke("doctor", **{**unset, **settings, "PORT": str(free_port()), **variables})
    assert not [digest for digest in DIGESTS if digest in done.output]
    return [" ".join(line.split()) for line in done.output.splitlines() if "console" in line.lower()]


def test_doctor_without_tokens_calls_the_console_closed(database: Database) -> None:
    assert findings(database) == ["ok console: closed, because CONSOLE_TOKENS is not set"]


def test_doctor_with_the_workers_login_calls_it_view_only(database: Database) -> None:
    cause = "view-only, because the login is not a member of billing_operator"
    tokens = "console: 2 operator tokens and 1 viewer token"
    assert findings(database, CONSOLE_TOKENS=TOKENS) == ["ok CONSOLE_TOKENS", f"ok {tokens}; {cause}"]


def test_doctor_with_an_operators_login_names_it(database: Database) -> None:
    found = findings(database, CONSOLE_TOKENS=TOKENS, OPERATOR_DATABASE_URL=database.operator_url)
    assert found[-1] == "ok console: 2 operator tokens and 1 viewer token; changes use the login webhook_operator"


@pytest.mark.parametrize(
    ("name", "value"), [("CONSOLE_TOKENS", "ann:operator:hidden"), ("CONSOLE_MAX_CREDITS", "a lot")]
)
def test_doctor_with_a_bad_setting_of_the_console_fails(database: Database, name: str, value: str) -> None:
    found = findings(database, **{"CONSOLE_TOKENS": TOKENS, name: value})
    [failure] = [line for line in found if line.startswith("fail")]
    assert failure.startswith(f"fail {name}")
    assert found[-1] == "skipped console: closed, because a setting above is bad"


def test_doctor_without_a_database_skips_the_console(database: Database) -> None:
    nowhere = "postgresql://worker@127.0.0.1:1/postgres"
    assert findings(database, CONSOLE_TOKENS=TOKENS, DATABASE_URL=nowhere)[-1].startswith("skipped console: ")
