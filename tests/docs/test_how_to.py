"""docs/operations.md and its neighbours: every statement runs, and every command is one that there is."""

from __future__ import annotations

import re

import click
import psycopg
import pytest

from support.databases import Database
from support.project import PROJECT
from support.roles import ALICE, add, sign_up
from webhook.cli import commands

PAGES = (*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"))
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"^ *```sql\n(.*?)^ *```", OPERATIONS, re.DOTALL | re.MULTILINE)
COMMANDS = sorted(
    {
        (page.name, words.strip())
        for page in PAGES
        for words in re.findall(r"(?:`|^ {4,}|bin/)webhook ([a-z][^`#|\n;…]*)", page.read_text("utf-8"), re.MULTILINE)
    }
)
VALUES = {
    "<address>": "a@example.com",
    "<generation id>": "99999999-0000-4000-8000-000000000009",
    "<password>": "only-for-tests",
    "<payment id>": "pi_1",
    "<user id>": ALICE,
}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: " ".join(statement.split())[:40])
def test_statement_of_the_operations_page_runs_as_the_owner(
    database: Database, admin: psycopg.Connection, statement: str
) -> None:
    """With values in the places that the page marks; afterwards the ledger adds up."""
    sign_up(admin, ALICE)
    add(admin, ALICE, 100, stripe_id="pi_1", payment_id="pi_1")
    for place, value in VALUES.items():
        statement = statement.replace(place, value)
    with psycopg.connect(database.admin_url) as owner:
        owner.execute(statement.encode())
        [(balance, entries)] = owner.execute(
            "select credits_balance, (select sum(amount) from public.transactions) from public.users"
        )
        owner.rollback()
    assert balance == entries


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_command_in_the_pages_has_the_options_it_is_given(page: str, words: str) -> None:
    """A page does not outlive the command that it names."""
    del page
    command: click.Command = commands
    for word in re.sub(r"[\[\]]", "", words).split():
        if isinstance(command, click.Group) and not word.startswith("-"):
            assert word in command.commands
            command = command.commands[word]
        elif word.startswith("--"):
            assert word in {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
