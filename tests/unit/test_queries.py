"""The named statements of sql/queries and sql/checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.project import PROJECT, SQL
from webhook.ledger.queries import check, query

CALLERS = ("actions", "console", "content", "explain", "ledger", "pages")
"""The packages that run named statements."""
FILES = sorted((SQL / "queries").glob("*.sql"))
STATEMENT = re.compile(
    r"\s*(select|insert|update|delete|create|alter|with|set|begin|call)\s.*(\bfrom\b|billing\.|public\.)", re.DOTALL
)


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for file in sorted((PROJECT / "webhook").rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def used_names() -> set[str]:
    """Return every string that could be a query's name."""
    return {text for file, tree in trees() if file.parent.name in CALLERS for text in texts(tree)}


def called_names() -> Iterator[str]:
    """Yield the query's name of each call that contains it as a literal."""
    for file, tree in trees():
        for node in ast.walk(tree) if file.parent.name in CALLERS else ():
            match node:
                case ast.Call(
                    func=ast.Name("query") | ast.Attribute(attr="rows" | "_rows" | "_value"),
                    args=[ast.Constant(name), *_],
                ):
                    yield str(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_query_file_has_a_header_comment_and_is_used(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith("-- ")
    assert not query(file.stem).startswith("--")
    assert file.stem in used_names()


def test_every_called_query_exists() -> None:
    names = set(called_names())
    assert len(names) > 10
    assert names <= {file.stem for file in FILES}


def test_python_contains_no_sql_statement() -> None:
    """`webhook dev` is exempt, because it creates its own database."""
    found = [
        (file.name, text)
        for file, tree in trees()
        if file.parent.name != "dev"
        for text in texts(tree)
        if STATEMENT.match(text)
    ]
    assert found == []


def test_checks_of_a_folder_form_one_statement() -> None:
    """The common part comes first, and each check adds one select."""
    files = list((SQL / "checks" / "sales").glob("*.sql"))
    assert check("sales").startswith("with recursive")
    assert check("sales").count("\nunion all\n\nselect") == len(files) - 2
