"""The code of docs/how-to/spend.md and show-balance.md runs, and docs/reference/errors.md lists the errors."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import errors

from support.databases import Database
from support.generations import available, expire
from support.project import DOCS
from support.roles import ALICE, CAROL, add, balance, connected, execute
from support.spending_page import GENERATION, JOB, snippets
from tools.supabase_cli import SRC

ERRORS = DOCS / "reference" / "errors.md"

WRONG_IN_SQL = [
    ("nobody", 30, "22P02"),
    (ALICE, 30.5, "42883"),
    (ALICE, Decimal("30.5"), "42883"),
    (ALICE, 2**63, "42883"),
]
WRONG_IN_JSON = [
    ("nobody", 30, "22P02"),
    (ALICE, 30.5, "22P02"),
    (ALICE, 2**63, "22003"),
]
# The statement with which PostgREST calls a function for a request body.
AS_POSTGREST = """
    select public.authorize_generation(p_user_id => p_user_id, p_cost => p_cost, p_generation_id => p_generation_id)
    from json_to_record(%s) as given (p_user_id uuid, p_cost bigint, p_generation_id uuid)
"""


def is_documented(state: str) -> bool:
    """Return whether the table of errors lists the SQLSTATE."""
    return f"\n| `{state}` |" in ERRORS.read_text(encoding="utf-8")


@pytest.fixture
def python() -> dict[str, Any]:
    """The names that the page's Python snippet defines, with short timeouts."""
    names: dict[str, Any] = {}
    [text] = snippets("python")
    exec(compile(with_short_timeout(text), "docs/how-to/spend.md", "exec"), names)
    names["TIMEOUTS"] |= {"connect_timeout": 2}
    return names


def with_short_timeout(text: str) -> str:
    """Return the snippet with a statement timeout of 100 ms."""
    assert "'8s'" in text
    return text.replace("'8s'", "'100ms'")


@pytest.fixture
def pauses(python: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pauses between retries, in seconds, that the page's Python snippet would have made."""
    waited: list[int] = []
    monkeypatch.setattr(python["time"], "sleep", waited.append)
    return waited


@pytest.fixture
def locked(database: Database, owner: psycopg.Connection) -> Iterator[None]:
    """Another transaction holds the lock of Alice's row."""
    assert owner
    with psycopg.connect(database.admin_url) as holder:
        holder.execute("select from public.users where id = %s for update", [ALICE])
        yield


def test_sql_snippets_spend_and_refund(database: Database, owner: psycopg.Connection) -> None:
    """They run in the order of the page."""
    authorizing, refunding, *_ = snippets("sql")
    with psycopg.connect(database.url, autocommit=True) as generator:
        execute(generator, authorizing)
        assert balance(owner, ALICE) == 70
        execute(generator, refunding)
    assert balance(owner, ALICE) == 100


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("capture_generation('<job id>', 45)", (55, 0, 55, None)),
        ("release_generation('<job id>')", (100, 0, 100, None)),
    ],
)
def test_sql_snippets_of_a_hold_change_the_shown_credits(
    database: Database, owner: psycopg.Connection, end: str, shown: tuple[int | None, ...]
) -> None:
    """The hold is captured or released. The query of show-balance.md shows balance, held and available credits."""
    assert owner
    reading, history = snippets("sql", "show-balance")
    _, _, reserving, capturing = snippets("sql")
    ending = re.sub(r"capture_generation\(.*\)", end.replace("<job id>", JOB), capturing)
    with psycopg.connect(database.url, autocommit=True) as generator:
        execute(generator, reserving)
        with connected(database, "authenticated", user=ALICE) as page:
            [(*credits_shown, expiry)] = execute(page, reading)
            assert (credits_shown, expiry is None) == ([100, 60, 40], False)
            execute(generator, ending)
            assert execute(page, reading) == [shown]
            assert sum(amount for amount, *_ in execute(page, history)) == shown[0]


def test_shown_credits_do_not_include_an_expired_hold(database: Database, owner: psycopg.Connection) -> None:
    with psycopg.connect(database.url, autocommit=True) as generator:
        execute(generator, snippets("sql")[2])
    expire(owner, JOB)
    with connected(database, "authenticated", user=ALICE) as page:
        assert execute(page, snippets("sql", "show-balance")[0]) == [(100, 0, 100, None)]


def test_python_snippet_spends_and_refunds_once(
    database: Database, owner: psycopg.Connection, python: dict[str, Callable[..., Any]]
) -> None:
    """Each call is made twice, with the worker's login."""
    for _ in range(2):
        assert python["authorize"](database.url, ALICE, 30, GENERATION) == 70
    for _ in range(2):
        assert python["refund"](database.url, GENERATION) == 100
    assert balance(owner, ALICE) == 100


def test_python_snippet_reserves_and_captures_once(
    database: Database, owner: psycopg.Connection, python: dict[str, Callable[..., Any]]
) -> None:
    """Each call is made twice. The table of the page has the same numbers."""
    for _ in range(2):
        assert python["reserve"](database.url, ALICE, 60, GENERATION, "2 hours") == 40
    for _ in range(2):
        assert python["capture"](database.url, GENERATION, 45) == 55
    assert python["reserve"](database.url, ALICE, 30, JOB, "2 hours") == 25
    expire(owner, JOB)
    assert (balance(owner, ALICE), available(owner, ALICE)) == (55, 55)


@pytest.mark.usefixtures("owner")
def test_python_snippet_releases_once(database: Database, python: dict[str, Callable[..., Any]]) -> None:
    python["reserve"](database.url, ALICE, 60, GENERATION, "2 hours")
    for _ in range(2):
        assert python["release"](database.url, GENERATION) == 100


def test_python_snippet_returns_none_for_an_unpaid_late_capture(
    database: Database, owner: psycopg.Connection, python: dict[str, Callable[..., Any]]
) -> None:
    """After a purchase, the same call succeeds."""
    python["reserve"](database.url, ALICE, 60, GENERATION, "2 hours")
    expire(owner, GENERATION)
    python["authorize"](database.url, ALICE, 100, JOB)
    assert python["capture"](database.url, GENERATION, 45) is None
    add(owner, ALICE, 45)
    assert python["capture"](database.url, GENERATION, 45) == 0


@pytest.mark.usefixtures("owner")
def test_python_snippet_returns_none_for_too_few_credits(
    database: Database, python: dict[str, Callable[..., Any]]
) -> None:
    """Any other refusal raises an error."""
    assert python["authorize"](database.url, ALICE, 101, GENERATION) is None
    assert python["reserve"](database.url, ALICE, 101, GENERATION, "2 hours") is None
    with pytest.raises(psycopg.Error, match="unknown_user"):
        python["authorize"](database.url, CAROL, 1, GENERATION)


@pytest.mark.usefixtures("locked")
def test_python_snippet_times_out_on_a_locked_user(database: Database, python: dict[str, Any]) -> None:
    """The page lists the SQLSTATE of the timeout."""
    with pytest.raises(errors.QueryCanceled):
        python["authorize"](database.url, ALICE, 30, GENERATION)
    assert is_documented("57014")


def test_python_snippet_times_out_on_a_silent_server(python: dict[str, Any]) -> None:
    """The server accepts the connection and sends nothing, so the connection timeout applies."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(errors.ConnectionTimeout):
        python["refund"](f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/postgres", GENERATION)


@pytest.mark.usefixtures("locked")
def test_sql_snippet_times_out_on_a_locked_user(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as generator, pytest.raises(errors.QueryCanceled):
        execute(generator, with_short_timeout(snippets("sql")[0]))


def test_python_snippet_retries_a_lost_call_and_debits_once(
    database: Database, owner: psycopg.Connection, python: dict[str, Any], pauses: list[int]
) -> None:
    """The connection is lost twice after the commit."""
    authorize, losses = python["authorize"], iter([True, True, False])

    def lose_connection(*arguments: object) -> object:
        new_balance = authorize(*arguments)
        if next(losses):
            raise psycopg.OperationalError
        return new_balance

    [call] = snippets("py")
    names = python | {"authorize": lose_connection, "url": database.url, "user_id": ALICE, "generation_id": GENERATION}
    exec(call, names)
    assert (names["balance"], balance(owner, ALICE), pauses) == (70, 70, [1, 2])


@pytest.mark.parametrize(("user_id", "cost", "state"), WRONG_IN_SQL)
def test_invalid_arguments_in_sql_raise_the_documented_error(
    database: Database, python: dict[str, Any], user_id: str, cost: object, state: str
) -> None:
    """psycopg raises these errors."""
    with pytest.raises(psycopg.Error) as caught:
        python["authorize"](database.url, user_id, cost, GENERATION)
    assert caught.value.sqlstate == state
    assert is_documented(state)


@pytest.mark.parametrize(("user_id", "cost", "state"), WRONG_IN_JSON)
def test_invalid_arguments_in_json_raise_the_documented_error(
    database: Database, user_id: str, cost: object, state: str
) -> None:
    """supabase-js receives these errors."""
    body = json.dumps({"p_user_id": user_id, "p_cost": cost, "p_generation_id": GENERATION})
    with connected(database, "service_role") as api, pytest.raises(psycopg.Error) as caught:
        api.execute(AS_POSTGREST, [body])
    assert caught.value.sqlstate == state
    assert is_documented(state)


def test_refund_above_the_maximum_raises_the_documented_error(
    database: Database, owner: psycopg.Connection, python: dict[str, Any]
) -> None:
    """The balance stays at its maximum."""
    python["authorize"](database.url, ALICE, 100, GENERATION)
    add(owner, ALICE, 2**53 - 1, type="REFUND")
    with pytest.raises(psycopg.Error) as caught:
        python["refund"](database.url, GENERATION)
    assert caught.value.sqlstate == "23514"
    assert is_documented("23514")
    assert balance(owner, ALICE) == 2**53 - 1


@pytest.mark.usefixtures("owner")
def test_python_snippet_does_not_retry_a_refusal(database: Database, python: dict[str, Any], pauses: list[int]) -> None:
    with pytest.raises(psycopg.Error, match="unknown_user"):
        python["until_answered"](python["authorize"], database.url, CAROL, 1, GENERATION)
    assert pauses == []


def test_typescript_snippets_are_part_of_the_compiled_file() -> None:
    """tsc checks src/spending.ts against the generated types."""
    compiled = (SRC / "spending.ts").read_text(encoding="utf-8")
    shown = snippets("ts") + snippets("ts", "show-balance")
    assert len(shown) == 8
    assert all(text in compiled for text in shown)


def test_error_table_lists_exactly_the_raised_errors(owner: psycopg.Connection) -> None:
    """SQLSTATEs and messages are those of the functions in the migrated database."""
    functions = owner.execute("select pg_get_functiondef(oid) from pg_proc where prosrc like '%errcode = ''CR%'")
    bodies = " ".join(body for (body,) in functions)
    raised = re.findall(r"raise exception '(\w+)'\s+using\s+errcode = '(CR\d+)'", bodies)
    rows = re.findall(r"^\| `(CR\d+)` \| ([^|]+) \|", ERRORS.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {(code, message) for code, messages in rows for message in re.findall(r"`(\w+)`", messages)}
    assert {(code, message) for message, code in raised} == listed
