"""What the pages of the console read: no statement locks anything. Read-only transactions allow advisory locks."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from support.project import SQL

READS = sorted([*(SQL / "queries").glob("explain_*.sql"), *(SQL / "queries").glob("console_*.sql")])
LOCKS = re.compile(r"pg_(try_)?advisory|\bfor (no key )?update\b|\bfor (key )?share\b|^\s*lock table", re.MULTILINE)
FUNCTION = re.compile(r"^create function (\w+\.\w+)\((.*?)^(?:comment on|revoke|create) ", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"\b(billing|public)\.(\w+)\(")


@cache
def bodies() -> dict[str, str]:
    """Return the text of each function of the schema."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(SQL.glob("*.sql")))
    return {name: body for text in texts for name, body in FUNCTION.findall(text)}


@cache
def locks(name: str) -> bool:
    """Return whether a function locks something, by itself or through one that it calls."""
    body = bodies().get(name, "")
    return bool(LOCKS.search(body)) or any(locks(each) for each in calls(body) if each != name)


def calls(text: str) -> set[str]:
    return {".".join(found) for found in CALL.findall(text)}


def test_locking_functions_are_recognised() -> None:
    assert [locks(f"billing.{name}") for name in ("adjust", "record", "lock_generation")] == [True] * 3
    assert not locks("billing.sale_of")


@pytest.mark.parametrize("file", READS, ids=lambda file: file.stem)
def test_statement_of_a_page_locks_nothing(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not LOCKS.search(text)
    assert [name for name in calls(text) if locks(name)] == []
