"""docs/how-to/spend.md: its code runs, and docs/reference/errors.md lists the errors that callers see."""

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
from support.project import DOCS
from support.roles import ALICE, NOBODY, add, balance, connected, execute
from support.spending_page import GENERATION, snippets
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
# As PostgREST calls a function with the body of a request.
AS_POSTGREST = """
    select public.authorize_generation(p_user_id => p_user_id, p_cost => p_cost, p_generation_id => p_generation_id)
    from json_to_record(%s) as given (p_user_id uuid, p_cost bigint, p_generation_id uuid)
"""


def told_of(state: str) -> bool:
    """Whether the table of errors has it."""
    return f"\n| `{state}` |" in ERRORS.read_text(encoding="utf-8")


@pytest.fixture
def python() -> dict[str, Any]:
    """What the page's Python defines, with less patience."""
    names: dict[str, Any] = {}
    [text] = snippets("python")
    exec(compile(hasty(text), "docs/how-to/spend.md", "exec"), names)
    names["TIMEOUTS"] |= {"connect_timeout": 2}
    return names


def hasty(text: str) -> str:
    """A snippet that waits for a user's row as long as a test does."""
    assert "'8s'" in text
    return text.replace("'8s'", "'100ms'")


@pytest.fixture
def pauses(python: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seconds that the page's Python would have waited."""
    waited: list[int] = []
    monkeypatch.setattr(python["time"], "sleep", waited.append)
    return waited


@pytest.fixture
def locked(database: Database, owner: psycopg.Connection) -> Iterator[None]:
    """Somebody holds Alice's row."""
    assert owner
    with psycopg.connect(database.admin_url) as holder:
        holder.execute("select from public.users where id = %s for update", [ALICE])
        yield


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


@pytest.mark.usefixtures("locked")
def test_python_of_the_page_that_meets_a_locked_user_gives_up(database: Database, python: dict[str, Any]) -> None:
    """A call never waits longer than the page says."""
    with pytest.raises(errors.QueryCanceled):
        python["authorize"](database.url, ALICE, 30, GENERATION)
    assert told_of("57014")


def test_python_of_the_page_that_meets_a_silent_server_gives_up(python: dict[str, Any]) -> None:
    """A server that takes the connection and says nothing is left after the time to connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(errors.ConnectionTimeout):
        python["refund"](f"postgresql://somebody@127.0.0.1:{silent.getsockname()[1]}/postgres", GENERATION)


@pytest.mark.usefixtures("locked")
def test_sql_of_the_page_that_meets_a_locked_user_gives_up(database: Database) -> None:
    """The statements do not wait longer, either."""
    with psycopg.connect(database.url, autocommit=True) as generator, pytest.raises(errors.QueryCanceled):
        execute(generator, hasty(snippets("sql")[0]))


def test_python_of_the_page_repeats_a_call_that_was_cut_off_and_debits_once(
    database: Database, owner: psycopg.Connection, python: dict[str, Any], pauses: list[int]
) -> None:
    """An answer that got lost is asked for again, as the page shows it."""
    authorize, losses = python["authorize"], iter([True, True, False])

    def cut_off(*arguments: object) -> object:
        answer = authorize(*arguments)
        if next(losses):
            raise psycopg.OperationalError
        return answer

    [call] = snippets("py")
    names = python | {"authorize": cut_off, "url": database.url, "user_id": ALICE, "generation_id": GENERATION}
    exec(call, names)
    assert (names["balance"], balance(owner, ALICE), pauses) == (70, 70, [1, 2])


@pytest.mark.parametrize(("user_id", "cost", "state"), WRONG_IN_SQL)
def test_wrong_arguments_in_sql_are_the_error_of_the_page(
    database: Database, python: dict[str, Any], user_id: str, cost: object, state: str
) -> None:
    """What SQL and psycopg see of a mistake is in the table."""
    with pytest.raises(psycopg.Error) as caught:
        python["authorize"](database.url, user_id, cost, GENERATION)
    assert caught.value.sqlstate == state
    assert told_of(state)


@pytest.mark.parametrize(("user_id", "cost", "state"), WRONG_IN_JSON)
def test_wrong_arguments_in_json_are_the_error_of_the_page(
    database: Database, user_id: str, cost: object, state: str
) -> None:
    """What supabase-js sees of a mistake is in the table."""
    body = json.dumps({"p_user_id": user_id, "p_cost": cost, "p_generation_id": GENERATION})
    with connected(database, "service_role") as api, pytest.raises(psycopg.Error) as caught:
        api.execute(AS_POSTGREST, [body])
    assert caught.value.sqlstate == state
    assert told_of(state)


def test_refund_past_the_highest_balance_is_the_error_of_the_page(
    database: Database, owner: psycopg.Connection, python: dict[str, Any]
) -> None:
    """A refund that no balance can hold gives nothing back."""
    python["authorize"](database.url, ALICE, 100, GENERATION)
    add(owner, ALICE, 2**53 - 1, type="REFUND")
    with pytest.raises(psycopg.Error) as caught:
        python["refund"](database.url, GENERATION)
    assert caught.value.sqlstate == "23514"
    assert told_of("23514")
    assert balance(owner, ALICE) == 2**53 - 1


@pytest.mark.usefixtures("owner")
def test_python_of_the_page_repeats_no_call_that_was_refused(
    database: Database, python: dict[str, Any], pauses: list[int]
) -> None:
    """A refusal is an answer."""
    with pytest.raises(psycopg.Error, match="unknown_user"):
        python["until_answered"](python["authorize"], database.url, NOBODY, 1, GENERATION)
    assert pauses == []


def test_typescript_of_the_page_is_what_is_compiled() -> None:
    """Each snippet stands in the file that tsc checks against the generated types."""
    compiled = (SRC / "spending.ts").read_text(encoding="utf-8")
    shown = snippets("ts")
    assert len(shown) == 5
    assert all(text in compiled for text in shown)


def test_errors_of_the_page_are_those_that_the_functions_raise(owner: psycopg.Connection) -> None:
    """The table names every refusal with its message, and no other, whichever migration made the functions."""
    functions = owner.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname in ('authorize_generation', 'refund_generation')"
    )
    bodies = " ".join(body for (body,) in functions)
    raised = re.findall(r"raise exception '(\w+)'\s+using\s+errcode = '(CR\d+)'", bodies)
    told = re.findall(r"^\| `(CR\d+)` \| `(\w+)` \|", ERRORS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(code, message) for message, code in raised} == set(told)
    assert len(told) == 6
