"""The ``webhook`` command, run in this process or in a new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from webhook import cli

WEBHOOK = Path(sys.executable).with_name("webhook")


def invoke(*arguments: str, answer: str | None = None, **environment: str) -> Result:
    """Run a command in this process, on a pipe, with these variables. An exception in it fails the test."""
    return CliRunner(env=environment).invoke(cli.commands, arguments, input=answer, catch_exceptions=False)


@contextmanager
def started(environment: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a new process, and kill it when the block ends."""
    command = [WEBHOOK, *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Done(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs the whole command in this process, so that ``responses`` can answer for Stripe."""

    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str) -> Done:
        self.monkeypatch.setattr("sys.argv", ["webhook", *arguments])
        with CliRunner().isolation() as (out, err, _):
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return Done(int(ended.value.code or 0), out.getvalue().decode(), err.getvalue().decode())
