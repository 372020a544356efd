"""The folder ``sql``, and the schema version that this code needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MIGRATION = re.compile(r"(\d{14})_\w+\.sql")


_TRIGGER = re.compile(
    r"^create trigger (\w+)\s.*?\son ([\w.]+)\s.*?execute function ([\w.]+\(\))", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Trigger:
    """A trigger of the migrations."""

    name: str
    table_name: str
    function: str
    statement: str
    """The statement that makes it, in one line."""


def sql_folder() -> Path:
    """Return the folder of the migrations: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "sql"
    return installed if installed.is_dir() else package.parent / "sql"


@cache
def expected_version() -> str:
    """Return the 14 digits of the newest migration, which ``billing.schema_version()`` has to return."""
    names = (_MIGRATION.fullmatch(path.name) for path in sql_folder().iterdir())
    return max(name[1] for name in names if name)


def triggers() -> list[Trigger]:
    """Return the triggers that the migrations make."""
    migrations = (path for path in sorted(sql_folder().iterdir()) if _MIGRATION.fullmatch(path.name))
    found = (each for path in migrations for each in _TRIGGER.finditer(path.read_text(encoding="utf-8")))
    return [Trigger(each[1], each[2], each[3], " ".join(each[0].split())) for each in found]
