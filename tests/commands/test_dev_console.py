"""The console of ``webhook dev``, in its own process: who reaches it, and with which database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import psycopg
import pytest

from support.databases import Database, new_folder
from support.dev import WAIT_TIMEOUT, Dev, serving


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """A ``webhook dev`` with its own database. Its environment names a real operator's database, as a copied .env."""
    with new_folder() as folder, serving(folder, OPERATOR_DATABASE_URL="postgresql://o@db.example.com/x") as running:
        yield running


def get(dev: Dev, path: str, **headers: str) -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", dev.port, timeout=WAIT_TIMEOUT)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers.get("Location", "") or response.read().decode()


def test_dev_names_the_console_first(dev: Dev) -> None:
    labels = [line.split()[0] for line in dev.output.partition("\n\n")[2].splitlines() if line.strip()]
    assert labels[:2] == ["Console", "Endpoint"]
    assert dev.printed("Console").split()[0] == f"http://127.0.0.1:{dev.port}"


def test_dev_opens_the_console_without_a_token(dev: Dev) -> None:
    assert get(dev, "/") == (302, "/console")
    status, page = get(dev, "/console")
    assert (status, "Your permissions" in page) == (200, True)


def test_dev_acts_on_its_own_database(dev: Dev) -> None:
    """The page says that changes work: the embedded owner is an operator, the one of the environment is not asked."""
    assert "view and act" in get(dev, "/console")[1]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"Via": "1.1 proxy"},
        {"CF-Ray": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/console", "/console/search?q=pi_1"])
def test_dev_hides_the_console_from_others(dev: Dev, path: str, headers: dict[str, str]) -> None:
    assert get(dev, path, **headers) == (404, '{"error":"Not Found"}\n')


def test_dev_with_a_given_database_needs_tokens(database: Database) -> None:
    with new_folder() as folder, serving(folder, DATABASE_URL=database.admin_url) as running:
        assert "CONSOLE_TOKENS" in running.printed("Console")
        assert [get(running, path)[0] for path in ("/", "/console", "/console/login")] == [404, 404, 404]


def test_dev_with_a_given_database_and_tokens_asks_for_one(database: Database) -> None:
    tokens = f"ann:viewer:{hashlib.sha256(b'a token').hexdigest()}"
    variables = {"DATABASE_URL": database.admin_url, "CONSOLE_TOKENS": tokens}
    with new_folder() as folder, serving(folder, **variables) as running:
        assert get(running, "/console") == (303, "/console/login?next=/console")
        assert get(running, "/console", Authorization="Bearer a token")[0] == 200
        assert psycopg.connect(running.printed("Database")).close() is None
