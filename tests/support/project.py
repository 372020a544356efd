"""Paths of the project."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
EVENTS = PROJECT / "tests" / "events"
SQL = PROJECT / "sql"
