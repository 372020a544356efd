"""The statements of ``sql/queries`` and ``sql/checks``, by name. Each file is read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from webhook.ledger.schema import sql_folder


@cache
def query(name: str) -> str:
    """Return the statement of ``sql/queries/<name>.sql``, without the comment at its top."""
    return _read(sql_folder() / "queries" / f"{name}.sql")


@cache
def check(name: str) -> str:
    """Return the statement of ``sql/checks/<name>.sql``, whose rows are findings.

    If ``name`` is a folder, its files are one statement: the first one holds the common table expressions, and each
    other one a select that reads them. So all of them share one pass over the ledger.
    """
    folder = sql_folder() / "checks"
    if not (folder / name).is_dir():
        return _read(folder / f"{name}.sql")
    common, *selects = map(_read, sorted((folder / name).glob("*.sql")))
    return common + "\n\nunion all\n\n".join(selects)


def _read(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    while lines and (lines[0].startswith("--") or not lines[0].strip()):
        del lines[0]
    return "".join(lines)
