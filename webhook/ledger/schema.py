"""The folder ``sql``, and the schema version that this code needs."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_MIGRATION = re.compile(r"(\d{14})_\w+\.sql")


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
