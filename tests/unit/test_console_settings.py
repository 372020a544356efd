"""CONSOLE_TOKENS and CONSOLE_MAX_CREDITS. A bad value closes the console, and deliveries go on."""

from __future__ import annotations

import hashlib

import pytest

from webhook.settings import (
    ConsoleSettings,
    SettingsError,
    read_console_settings,
    read_console_tokens,
    read_max_credits,
    read_settings,
)

DIGEST, OTHER = (hashlib.sha256(text).hexdigest() for text in (b"one", b"other"))
GOOD = {
    "DATABASE_URL": "postgresql://worker@db.example.com/postgres",
    "STRIPE_WEBHOOK_SECRET": "whsec_1",
    "STRIPE_LIVEMODE": "false",
    "CONSOLE_TOKENS": f"ann:operator:{DIGEST}, bob.b-b_1:viewer:{OTHER}",
}


def test_tokens_have_name_role_and_hash() -> None:
    tokens = [(each.name, each.role, each.digest) for each in read_console_tokens(GOOD)]
    assert tokens == [("ann", "operator", DIGEST), ("bob.b-b_1", "viewer", OTHER)]


def test_name_may_appear_twice() -> None:
    tokens = read_console_tokens({"CONSOLE_TOKENS": f"ann:operator:{DIGEST},ann:viewer:{OTHER}"})
    assert [each.name for each in tokens] == ["ann", "ann"]


@pytest.mark.parametrize(
    "value",
    [
        "ann",
        ",",
        f"ann:operator:{DIGEST},",
        f"ann:admin:{DIGEST}",
        f"ann:{DIGEST}",
        f"ann:operator:{DIGEST[:-1]}",
        f"ann:operator:{DIGEST}0",
        f"ann:operator:{DIGEST.upper()}",
        f"ann:operator:sha256-{DIGEST}",
        f"Ann:operator:{DIGEST}",
        f":operator:{DIGEST}",
        f"{'a' * 33}:operator:{DIGEST}",
        f"a n:operator:{DIGEST}",
        f"änn:operator:{DIGEST}",
        f"ann:operator:{DIGEST} bob:viewer:{OTHER}",
        f"ann:operator:{DIGEST};bob:viewer:{OTHER}",
        f'"ann:operator:{DIGEST}"',
        f"ann:operator:{DIGEST},bob:viewer:{DIGEST}",
        f"ann:operator:{hashlib.sha256(b'').hexdigest()}",
        "ann:operator:a-token-instead-of-its-hash",
    ],
)
def test_bad_tokens_close_the_console_alone(value: str) -> None:
    """The worker's settings hold the error, which quotes no entry."""
    console = read_settings({**GOOD, "CONSOLE_TOKENS": value}).console
    assert isinstance(console, SettingsError)
    assert str(console).startswith("CONSOLE_TOKENS")
    assert not [each for each in (DIGEST, OTHER, "a-token") if each in str(console)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONSOLE_MAX_CREDITS", "0"),
        ("CONSOLE_MAX_CREDITS", "-5"),
        ("CONSOLE_MAX_CREDITS", "1e6"),
        ("CONSOLE_MAX_CREDITS", "1000000001"),
        ("OPERATOR_DATABASE_URL", "mysql://db.example.com/x"),
    ],
)
def test_bad_setting_of_the_console_closes_it_alone(name: str, value: str) -> None:
    console = read_settings({**GOOD, name: value}).console
    assert isinstance(console, SettingsError)
    assert str(console).startswith(name)


@pytest.mark.parametrize("value", ["", "  "])
def test_console_without_tokens_is_closed(value: str) -> None:
    """A bad CONSOLE_MAX_CREDITS does not matter then."""
    assert read_settings({**GOOD, "CONSOLE_TOKENS": value, "CONSOLE_MAX_CREDITS": "x"}).console is None
    assert read_console_tokens({"CONSOLE_TOKENS": value}) == ()


def test_console_acts_with_the_operators_url() -> None:
    console = read_settings({**GOOD, "OPERATOR_DATABASE_URL": "postgresql://operator@db.example.com/x"}).console
    assert isinstance(console, ConsoleSettings)
    assert console.database_url == GOOD["DATABASE_URL"]
    assert console.operator_database_url == "postgresql://operator@db.example.com/x"
    assert read_console_settings(GOOD).operator_database_url == GOOD["DATABASE_URL"]


def test_most_credits_are_10_000_by_default() -> None:
    assert (read_max_credits({}), read_max_credits({"CONSOLE_MAX_CREDITS": "5"})) == (10_000, 5)


def test_repr_of_the_settings_hides_the_hashes() -> None:
    """They sign the cookies."""
    assert not [each for each in (DIGEST, OTHER) if each in repr(read_settings(GOOD))]
