"""The documentation pages: every SQL statement runs, every command exists, and every link has a target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import click
import psycopg
import pytest

from support.databases import Database
from support.ledger_queries import wrong_balances
from support.project import DOCS, PROJECT
from support.roles import ALICE, add, sign_up
from webhook.cli import commands

PAGES = {
    str(page.relative_to(PROJECT)): page.read_text("utf-8") for page in (*PROJECT.glob("*.md"), *DOCS.rglob("*.md"))
}
VALUES = {
    "<address>": "a@example.com",
    "<generation id>": "99999999-0000-4000-8000-000000000009",
    "<job id>": "88888888-0000-4000-8000-000000000008",
    "<password>": "only-for-tests",
    "<payment id>": "pi_1",
    "<user id>": ALICE,
    "create role webhook_operator ": "create role webhook_operator_of_the_page ",
    "create role webhook_worker ": "create role webhook_worker_of_the_page ",  # the tests use a role of that name
}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
COMMAND_IN_CODE = re.compile(r"(?:^|[\s/&;=])webhook ([a-z][^`#|\n;]*)", re.MULTILINE)
COMMAND_IN_TEXT = re.compile(r"(?:`|^ {4,}|bin/)webhook ([a-z][^`#|\n;]*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def statements(page: str) -> list[str]:
    """Return the page's SQL statements, in order."""
    return [code for language, code in FENCE.findall(PAGES[page]) if language == "sql"]


def with_values(statement: str) -> str:
    """Return the statement with values in place of the page's placeholders."""
    for placeholder, value in VALUES.items():
        statement = statement.replace(placeholder, value)
    return statement


def named_commands() -> Iterator[tuple[str, str]]:
    """Yield each command line of each page, as (page, words after ``webhook``)."""
    for page, text in PAGES.items():
        for _, code in FENCE.findall(text):
            yield from ((page, words.strip()) for words in COMMAND_IN_CODE.findall(code))
        yield from ((page, words.strip()) for words in COMMAND_IN_TEXT.findall(FENCE.sub("", text)))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        title = re.sub(r"\]\([^)]*\)|[^\w\- ]", "", heading.strip().lower())
        slug = title.replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: str) -> list[str]:
    """Return the page's links to files of the project and to its own headings."""
    found = LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", PAGES[page])))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def is_broken(page: str, link: str) -> bool:
    """Return whether the link names a file or a heading that does not exist."""
    path, _, anchor = link.partition("#")
    target = ((PROJECT / page).parent / path).resolve() if path else PROJECT / page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in anchors(target.read_text("utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if statements(page)])
def test_statements_of_the_page_run_as_the_owner(database: Database, admin: psycopg.Connection, page: str) -> None:
    """They run in the page's order, and all balances are correct after each one."""
    sign_up(admin, ALICE)
    add(admin, ALICE, 100, stripe_id="pi_1", payment_id="pi_1")
    with psycopg.connect(database.admin_url) as owner:
        for statement in statements(page):
            owner.execute(with_values(statement).encode())
            assert wrong_balances(owner) == []
        owner.rollback()


@pytest.mark.parametrize(("page", "words"), sorted(set(named_commands())))
def test_command_in_a_page_exists_with_its_options(page: str, words: str) -> None:
    del page
    command: click.Command = commands
    remaining = iter(re.sub(r"[\[\]]", "", words).split())
    for word in remaining:
        if word.startswith("--"):
            options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
            assert word in options
            if isinstance(command, click.Group) and not options[word].is_flag:
                next(remaining)  # the option's value, which is no subcommand
        elif isinstance(command, click.Group) and not word.startswith("-") and not word.isupper():
            assert word in command.commands
            command = command.commands[word]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_page_have_targets(page: str) -> None:
    """A target is a file of the project or a heading in one."""
    assert [link for link in links(page) if is_broken(page, link)] == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Manual capture", "manual-capture"),
        ("Endpoints without `refund.*` events", "endpoints-without-refund-events"),
        ("Stripe's own events", "stripes-own-events"),
        ("One [linked](page.md) word", "one-linked-word"),
        ("`STRIPE_API_KEY`", "stripe_api_key"),
    ],
)
def test_anchor_of_a_heading_matches_github(heading: str, anchor: str) -> None:
    assert anchors(f"## {heading}\n") == {anchor}


def test_readme_is_short() -> None:
    """Everything else belongs in docs/."""
    assert len(PAGES["README.md"].splitlines()) <= 120
