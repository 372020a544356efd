"""Exit codes of every command, the future ones included: 2 for no answer or wrong usage, never a traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest

from support.commands import WEBHOOK
from support.databases import Database
from support.ports import free_port
from support.stripe_stand_in import StripeStandIn
from webhook.cli import commands
from webhook.cli.exit_codes import Command
from webhook.settings import child_environment

WAIT_TIMEOUT = 60


def every_command(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield command
        if isinstance(command, click.Group):
            yield from every_command(command)


def example(command: click.Command) -> list[str]:
    """Return the arguments in the help text's example."""
    [line] = re.findall(r"Example:\n\s*webhook (.*)", command.help or "")
    return shlex.split(line)


def run(environment: dict[str, str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WEBHOOK, *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=WAIT_TIMEOUT,
        **options,
    )


EVERY = pytest.mark.parametrize("command", [pytest.param(each, id=each.name) for each in every_command(commands)])
CONNECTING = [pytest.param(each, id=each.name) for each in every_command(commands) if each.name != "token"]
"""Commands that need a setting: `console token` prints random numbers."""


@EVERY
def test_every_command_returns_its_exit_code(command: click.Command) -> None:
    assert isinstance(command, Command)


@pytest.mark.parametrize("command", CONNECTING)
def test_command_without_database_and_stripe_exits_with_2(command: click.Command, tmp_path: Path) -> None:
    """It prints one line. `doctor` lists what it found, so it exits with 1. `serve` lacks a signing secret."""
    nowhere = f"127.0.0.1:{free_port()}"
    environment = {
        "DATABASE_URL": f"postgresql://webhook@{nowhere}/postgres",
        "STRIPE_API_KEY": "rk_test_1",
        "STRIPE_API_BASE": f"http://{nowhere}",
        "PATH": os.environ["PATH"],
    }
    done = run(environment, *example(command), cwd=tmp_path, stdout=subprocess.PIPE)
    assert "Traceback" not in done.stderr
    if command.name == "doctor":
        assert (done.returncode, done.stderr) == (1, "")
    else:
        assert (done.returncode, done.stdout if command.name not in ("adjust", "assign") else "") == (2, "")
        assert done.stderr.splitlines()[-1].startswith("webhook: ")


@pytest.mark.parametrize("command", CONNECTING)
def test_command_with_a_bad_database_url_exits_with_2(command: click.Command, tmp_path: Path) -> None:
    """It names the variable. `demo` finds no `webhook dev`; the endpoint commands use no database."""
    bad = {"DATABASE_URL": "mysql://127.0.0.1/x", "STRIPE_API_KEY": "whsec_1"}
    environment = bad | {"STRIPE_LIVEMODE": "false", "PATH": os.environ["PATH"]}
    done = run(environment, *example(command), cwd=tmp_path, stdout=subprocess.PIPE)
    named = done.stdout if command.name == "doctor" else done.stderr
    assert done.returncode == (1 if command.name == "doctor" else 2)
    assert re.search("DATABASE_URL is not|STRIPE_API_KEY is not|no `webhook dev`", named)


@contextmanager
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        yield full.fileno()


@pytest.mark.parametrize("output", [closed_pipe, full_disk])
@pytest.mark.parametrize(
    "line",
    [
        "parked",
        "parked --json",
        "parked evt_1",
        "parked evt_1 --json",
        "retry",
        "reconcile --since 1d",
        "reconcile --since 1d --json",
        "audit",
        "audit --json",
        "discard evt_1 --reason test",
        "adjust 00000000-0000-4000-8000-000000000000 5 --reason test",
        "doctor",
        "migrate",
    ],
)
def test_command_with_unwritable_output_exits_with_2(
    database: Database, admin: psycopg.Connection[Any], stripe: StripeStandIn, line: str, output: Any
) -> None:
    """It reports the cause without a traceback."""
    payload = json.dumps({"id": "evt_1", "type": "invoice.paid", "data": {"object": {}}})
    admin.execute("select billing.park('evt_1', 'invoice.paid', 'unreadable', null, %s)", [payload])
    settings = stripe.settings(database.url) | {
        "MIGRATION_DATABASE_URL": database.admin_url,
        "OPERATOR_DATABASE_URL": database.operator_url,
    }
    with output() as stdout:
        done = run(child_environment(settings), *line.split(), stdout=stdout)
    assert (done.returncode, "Traceback" in done.stderr, "Exception ignored" in done.stderr) == (2, False, False)
    assert "webhook: [Errno" in done.stderr


@pytest.mark.parametrize("line", ["--help", "--version", "retry --help", "endpoint --help"])
def test_help_with_a_full_disk_exits_with_2(line: str) -> None:
    with full_disk() as stdout:
        done = run(child_environment({}), *line.split(), stdout=stdout)
    assert (done.returncode, done.stderr) == (2, "webhook: [Errno 28] No space left on device\n")
