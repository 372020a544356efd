"""docs/spending.md: what it shows runs, and what it tells is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Database
from roles import ALICE, NOBODY, balance, connected, execute, open_accounts
from supabase_cli import PROJECT, SRC

PAGE = (PROJECT / "docs" / "spending.md").read_text(encoding="utf-8")
GENERATION = "11111111-0000-4000-8000-000000000001"
MIGRATION = PROJECT / "sql" / "20261122000008_spending.sql"


def snippets(language: str) -> list[str]:
    """The page's snippets, for Alice and a generation of hers."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text.replace("<user id>", ALICE).replace("<generation id>", GENERATION) for text in found]


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection; Alice has 100 credits."""
    open_accounts(admin)
    return admin


@pytest.fixture
def python() -> dict[str, Callable[..., Any]]:
    """What the page's Python defines."""
    names: dict[str, Any] = {}
    [text] = snippets("python")
    exec(compile(text, "docs/spending.md", "exec"), names)
    return names


def test_sql_of_the_page_spends_gives_back_and_reads(database: Database, owner: psycopg.Connection) -> None:
    """The statements do what they are there for, in the order of the page."""
    authorizing, refunding, reading, history = snippets("sql")
    with psycopg.connect(database.url, autocommit=True) as generator:
        execute(generator, authorizing)
        assert balance(owner, ALICE) == 70
        execute(generator, refunding)
    with connected(database, "authenticated", user=ALICE) as page:
        assert execute(page, reading) == [(100,)]
        assert sorted(amount for amount, _, _ in execute(page, history)) == [-30, 30, 100]


def test_python_of_the_page_spends_once_and_gives_back_once(
    database: Database, owner: psycopg.Connection, python: dict[str, Callable[..., Any]]
) -> None:
    """The functions do what their docstrings say, as the worker's login."""
    for _ in range(2):
        assert python["authorize"](database.url, ALICE, 30, GENERATION) == 70
    for _ in range(2):
        assert python["refund"](database.url, GENERATION) == 100
    assert balance(owner, ALICE) == 100


@pytest.mark.usefixtures("owner")
def test_python_of_the_page_tells_too_few_credits_from_other_errors(
    database: Database, python: dict[str, Callable[..., Any]]
) -> None:
    """Too few credits are an answer, anything else is an error."""
    assert python["authorize"](database.url, ALICE, 101, GENERATION) is None
    with pytest.raises(psycopg.Error, match="unknown_user"):
        python["authorize"](database.url, NOBODY, 1, GENERATION)


def test_typescript_of_the_page_is_what_is_compiled() -> None:
    """Each snippet stands in the file that tsc checks against the generated types."""
    compiled = (SRC / "spending.ts").read_text(encoding="utf-8")
    shown = snippets("ts")
    assert len(shown) == 4
    assert all(text in compiled for text in shown)


def test_errors_of_the_page_are_those_that_the_functions_raise() -> None:
    """The table names every refusal with its message, and no other."""
    raised = re.findall(r"raise exception '(\w+)'\s+using\s+errcode = '(CR\d+)'", MIGRATION.read_text(encoding="utf-8"))
    told = re.findall(r"^\| `(CR\d+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert {(code, message) for message, code in raised} == set(told)
    assert len(told) == 6
