"""The TypeScript types for other apps match the schema and fit supabase-js."""

from __future__ import annotations

import pytest

from support.databases import Database
from tools.supabase_cli import SRC, TYPES, generated_types, needs_tools, run

pytestmark = needs_tools

MISTAKES = {
    "a missing argument": ("p_cost: cost,\n      p_generation_id", "p_generation_id"),
    "an argument of another type": (
        "p_user_id: userId,\n      p_cost: cost,",
        'p_user_id: userId,\n      p_cost: "30",',
    ),
    "an unknown function": ('rpc("refund_generation"', 'rpc("refund_generations"'),
    "an unknown column": ('select("credits_balance,', 'select("balance,'),
    "an unknown column of an embedded table": ("generation_holds(amount,", "generation_holds(credits,"),
    "a result of another type": ("Promise<number | null>", "Promise<string | null>"),
}


def test_committed_types_match_the_generator(database: Database) -> None:
    """Run make types after changing the schema public."""
    assert TYPES.read_text(encoding="utf-8") == generated_types(database.admin_url)


def test_documented_calls_compile_in_strict_mode() -> None:
    """The code of docs/how-to/spend.md and show-balance.md fits the generated types and the installed supabase-js."""
    done = run("tsc", "--project", ".")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_call_does_not_compile(mistake: str) -> None:
    """The types check names, arguments and results."""
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
    done = run("prettier", "--check", "*.{json,ts}", "types")
    assert done.returncode == 0, done.stderr
