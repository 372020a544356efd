"""``webhook adjust``: the credits, the output and the exit codes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import Result

from support.commands import WEBHOOK, invoke
from support.databases import Database
from support.operators import actions
from support.roles import ALICE, BOB, CAROL, balance
from webhook.settings import child_environment

ID = "99999999-0000-4000-8000-000000000009"
Adjust = Callable[..., Result]


@pytest.fixture
def adjust(database: Database, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> Adjust:
    """Adjust balances of Alice, who has 100 credits, and Bob, who has 50, with a reason."""
    assert owner
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("OPERATOR_DATABASE_URL", database.operator_url)
    monkeypatch.setenv("LOG_FORMAT", "json")
    return lambda *arguments: invoke("adjust", *arguments, "--reason", "a bonus")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    variables = child_environment(environment, without=("DATABASE_", "OPERATOR_"))
    command = [WEBHOOK, "adjust", *arguments, "--reason", "a bonus"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


def test_adjust_prints_id_action_and_balances(adjust: Adjust, owner: psycopg.Connection[Any]) -> None:
    result = adjust(ALICE, "30", "--id", ID)
    assert result.exit_code == 0
    assert result.stdout == f"id       {ID}\naction   1\nbalance  100 → 130\n"
    assert balance(owner, ALICE) == 130


def test_adjust_with_a_negative_number_takes_credits(adjust: Adjust, owner: psycopg.Connection[Any]) -> None:
    """The number needs no `--` before it, wherever it is."""
    assert adjust(ALICE, "-30").exit_code == 0
    assert adjust("--description", "-5", ALICE, "-20").exit_code == 0
    assert (balance(owner, ALICE), actions(owner)[0][3:]) == (50, (0, 30))
    assert owner.execute("select max(description) from public.transactions").fetchone() == ("-5",)


def test_adjust_makes_a_new_id_for_each_call(adjust: Adjust, owner: psycopg.Connection[Any]) -> None:
    ids = [re.search(r"id +(\S+)", adjust(ALICE, "5").stdout)[1] for _ in range(2)]  # type: ignore[index]
    assert len({*ids}) == 2
    assert balance(owner, ALICE) == 110


def test_adjust_repeated_with_its_id_acts_once(adjust: Adjust, owner: psycopg.Connection[Any]) -> None:
    first, again = adjust(ALICE, "5", "--id", ID), adjust(ALICE, "5", "--id", ID.upper())
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert again.stdout == f"id       {ID}\naction   1, done before\nbalance  105\n"
    assert again.stderr == ""
    assert balance(owner, ALICE) == 105


def test_adjust_logs_a_warning_without_user_or_reason(adjust: Adjust) -> None:
    logged = json.loads(adjust(ALICE, "-5", "--by", "ann").stderr)
    del logged["time"]
    assert logged == {
        "message": "operator action",
        "level": "warning",
        "action": "adjust",
        "number": 1,
        "by": "ann",
        "channel": "cli",
        "credits": -5,
    }


def test_adjust_without_by_stores_the_system_user(adjust: Adjust, owner: psycopg.Connection[Any]) -> None:
    adjust(ALICE, "5")
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    stored = owner.execute("select by, login, channel from billing.operator_actions").fetchall()
    assert stored == [(user, "webhook_operator", "cli")]


def test_adjust_with_debt_needs_the_option(database: Database, owner: psycopg.Connection[Any]) -> None:
    done = run(ALICE, "-101", "--id", ID, DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stdout) == (2, f"id       {ID}\n")
    assert done.stderr == (
        "webhook: The available credits are 100, the amount is -101. "
        "Nothing was changed. Take less, or allow the debt (--allow-debt, p_allow_debt).\n"
    )
    assert run(ALICE, "-101", "--allow-debt", DATABASE_URL=database.operator_url).returncode == 0
    assert balance(owner, ALICE) == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CAROL, "5"), f"There is no user {CAROL}."),
        ((BOB, "5", "--id", ID), f"The id {ID} belongs to another"),
        ((ALICE, "6", "--id", ID), f"The id {ID} belongs to another"),
        ((ALICE, "5", "--by", "x" * 101), "A reason has at most 1000 characters"),
    ],
    ids=["unknown user", "id of another user", "id of another amount", "long name"],
)
def test_refused_adjustment_prints_one_line(
    database: Database, owner: psycopg.Connection[Any], arguments: tuple[str, ...], message: str
) -> None:
    run(ALICE, "5", "--id", ID, DATABASE_URL=database.operator_url)
    before = actions(owner)
    done = run(*arguments, DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"webhook: {message}")
    assert actions(owner) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("ann@example.com", "5"),
        (ALICE,),
        (ALICE, "0"),
        (ALICE, "5.5"),
        (ALICE, "1000000001"),
        (ALICE, "five"),
        (ALICE, "--allow-det", "5"),
        (ALICE, "5", "--allow-det"),
        (ALICE, "5", "6"),
        (ALICE, "5", "--id", "1"),
        (ALICE, "5", "--by", ""),
        (ALICE, "5", "--description", "two\nlines"),
    ],
    ids=str,
)
def test_adjust_with_wrong_usage_exits_with_2(
    adjust: Adjust, owner: psycopg.Connection[Any], arguments: tuple[str, ...]
) -> None:
    assert adjust(*arguments).exit_code == 2
    assert actions(owner) == []


def test_misspelled_option_before_the_number_is_named(adjust: Adjust) -> None:
    assert "No such option '--allow-det'" in adjust(ALICE, "--allow-det", "5").stderr


def test_adjust_without_an_answer_prints_how_to_repeat() -> None:
    done = run(ALICE, "5", "--id", ID, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, f"id       {ID}\n", 1)
    assert done.stderr.endswith(f"repeat the command with --id {ID}\n")


# The login


def test_adjust_by_the_workers_login_names_login_and_grant(database: Database, owner: psycopg.Connection[Any]) -> None:
    done = run(ALICE, "5", DATABASE_URL=database.url)
    assert done.returncode == 2
    assert done.stderr == (
        "webhook: the login webhook_worker may not act as billing_operator: "
        "as the schema's owner, grant billing_operator to webhook_worker\n"
    )
    assert actions(owner) == []


def test_adjust_needs_no_membership_in_service_role(database: Database, owner: psycopg.Connection[Any]) -> None:
    """A login for support staff alone can be a member of billing_operator and nothing else."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute(
            "create role support_staff login noinherit password 'only-for-tests' in role billing_operator"
        )
        try:
            url = database.operator_url.replace("webhook_operator", "support_staff")
            assert run(ALICE, "5", OPERATOR_DATABASE_URL=url, DATABASE_URL=database.url).returncode == 0
        finally:
            superuser.execute("drop role support_staff")
    assert balance(owner, ALICE) == 105


def test_adjust_before_migrate_names_the_cause(empty_database: Database) -> None:
    done = run(ALICE, "5", DATABASE_URL=empty_database.operator_url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SQLSTATE 3F000" in done.stderr
