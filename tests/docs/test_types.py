"""The TypeScript types of the sibling apps: what the generator makes of the schema, and that they fit supabase-js."""

from __future__ import annotations

import pytest

from support.databases import Database
from tools.supabase_cli import SRC, TYPES, generated_types, needs_tools, run

pytestmark = needs_tools

MISTAKES = {
    "an argument is missing": ("p_cost: cost,", ""),
    "an argument has another type": ("p_cost: cost,", 'p_cost: "30",'),
    "a function is not there": ('rpc("refund_generation"', 'rpc("refund_generations"'),
    "a column is not there": ('select("credits_balance")', 'select("balance")'),
    "an answer is taken for another type": ("Promise<number | null>", "Promise<string | null>"),
}


def test_types_committed_are_what_the_generator_makes_today(database: Database) -> None:
    """A migration that changes the API's schema comes with its types: make types."""
    assert TYPES.read_text(encoding="utf-8") == generated_types(database.admin_url)


def test_calls_of_the_documentation_compile_strictly() -> None:
    """What docs/how-to/spend.md shows fits the types and the supabase-js of today."""
    done = run("tsc", "--project", ".")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_call_does_not_compile(mistake: str) -> None:
    """The types know names, arguments and answers: a wrong one is found before it runs."""
    right, wrong = MISTAKES[mistake]
    text = (SRC / "spending.ts").read_text(encoding="utf-8")
    assert right in text
    copy = SRC / "mistaken.ts"
    try:
        copy.write_text(text.replace(right, wrong), encoding="utf-8")
        assert "mistaken.ts" in run("tsc", "--project", ".").stdout
    finally:
        copy.unlink()


def test_typescript_is_formatted() -> None:
    """prettier finds nothing to change."""
    done = run("prettier", "--check", "*.{json,ts}", "types")
    assert done.returncode == 0, done.stderr
