"""The Stripe CLI: forwards the events of a Stripe sandbox to ``webhook dev``.

Its output is documented at https://docs.stripe.com/stripe-cli/use-cli. The API key is in its environment, which other
users cannot read.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

import click

from webhook.dev import supervise
from webhook.dev.errors import DevError
from webhook.events.interpret import HANDLED_EVENTS
from webhook.settings import child_environment

LOGIN = "npx @stripe/cli login"
_SECRET_TIMEOUT = 120
"""Seconds, the time to download the CLI included."""
_OUTPUT_TIMEOUT = 5
"""Seconds to read what a CLI that has ended still had to print."""
_NOT_FOR_THE_CLI = ("DATABASE_", "MIGRATION_", "OPERATOR_", "STRIPE_API_", "STRIPE_WEBHOOK_", "PG", "CLICOLOR")
_SECRET = re.compile(r"^whsec_[A-Za-z0-9]+$", re.MULTILINE)
_MESSAGE = "Stripe CLI"
_NO_KEY = re.compile(r"not configured API keys", re.IGNORECASE)
_API_MESSAGE = re.compile(r'"message":\s*"((?:[^"\\]|\\.)*)"')
_LOG_MESSAGE = re.compile(r'^time=.*? msg="?(.*?)"?$')
_COLOR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)")
_EVENT = re.compile(r"--> (?:connect )?(\S+) \[(\w+)\]$")
_ANSWER = re.compile(r"<-- +\[(\d+)\] .* \[(\w+)\]$")


@dataclass(frozen=True)
class StripeCli:
    """The CLI that is installed, with its key."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        """Return its name, and its source if that is npm."""
        return "the Stripe CLI" if len(self.command) == 1 else "the Stripe CLI with npx"

    def signing_secret(self) -> str:
        """Return the secret that ``stripe listen`` signs with; raise :class:`DevError`."""
        try:
            done = subprocess.run(  # noqa: S603
                [*self.command, "listen", "--print-secret"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_SECRET_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise DevError(f"the Stripe CLI printed no signing secret within {_SECRET_TIMEOUT} s") from None
        if found := _SECRET.search(done.stdout):
            return found[0]
        raise DevError(self._cause(done.stderr) or "the Stripe CLI printed no signing secret")

    def listen(self, url: str) -> Listener:
        """Start to forward the handled events to ``url``."""
        options = ("--skip-update", "--latest", "--events", ",".join(HANDLED_EVENTS), "--forward-to", url)
        program = supervise.start(
            [*self.command, "listen", *options],
            environment=self.environment,
            output=subprocess.PIPE,
            with_descendants=True,  # npx starts the CLI as a child of its own
        )
        return Listener(program)

    def _cause(self, errors: str) -> str:
        if _NO_KEY.search(errors):
            return f"the Stripe CLI has no key: set STRIPE_API_KEY to a test-mode key, or run {LOGIN}"
        cause = cause_in(errors.splitlines())
        return f"the Stripe CLI cannot listen: {cause}" if cause else ""


def find_cli(api_key: str) -> StripeCli:
    """Return the CLI, from PATH or from npm; raise :class:`DevError`. Without a key it uses its own login."""
    key = {"STRIPE_API_KEY": api_key} if api_key else {}
    environment = child_environment(key, without=_NOT_FOR_THE_CLI)
    if stripe := shutil.which("stripe"):
        return StripeCli((stripe,), environment)
    if npx := shutil.which("npx"):
        quiet = {"NPM_CONFIG_UPDATE_NOTIFIER": "false"}
        return StripeCli((npx, "--yes", "@stripe/cli"), environment | quiet)
    raise DevError("--listen needs the Stripe CLI: install it (https://docs.stripe.com/stripe-cli), or Node.js for npx")


class Listener:
    """A running ``stripe listen``. It prints a line for each event."""

    def __init__(self, program: supervise.SupervisedProcess) -> None:
        self.program = program
        self._types: dict[str, str] = {}
        self._last_lines: deque[str] = deque(maxlen=5)
        self._reader = threading.Thread(target=self._print_lines, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Stop the CLI, and return once it has ended."""
        self.program.stop()

    def cause(self) -> str:
        """Return why the CLI ended by itself."""
        self._reader.join(_OUTPUT_TIMEOUT)
        last = cause_in(self._last_lines) or "no message"
        return f"stripe listen ended by itself, with exit code {self.program.exit_code}: {last}"

    def _print_lines(self) -> None:
        output: IO[bytes] | None = self.program.process.stdout
        for line in output or ():
            text = line.decode(errors="replace")
            shown = readable(text, self._types)
            if shown.startswith(_MESSAGE):
                self._last_lines.append(text)
            if shown:
                click.echo(f"  {shown}")


def readable(line: str, types: dict[str, str]) -> str:
    """Return a line of ``stripe listen`` as it is shown, "" if it is not. ``types`` keeps the type of each event."""
    line = _COLOR.sub("", line).strip()
    if event := _EVENT.search(line):
        types[event[2]] = event[1]
        return ""
    if answer := _ANSWER.search(line):
        return f"Stripe event   {types.pop(answer[2], 'an event')}  {answer[2]}  answered {answer[1]}"
    if line.startswith("Ready!"):
        return "Stripe events are forwarded to this worker."
    return f"{_MESSAGE}     {_message(line)}" if line and line != "Getting ready..." else ""


def cause_in(lines: Iterable[str]) -> str:
    """Return the message of Stripe's API in these lines, else the last line of the CLI, else npm's error."""
    texts = [text for line in lines if (text := _COLOR.sub("", line).strip())]
    if found := _API_MESSAGE.search(" ".join(texts)):
        return found[1].replace('\\"', '"')
    if printed := [text for text in texts if not text.startswith("npm ")]:
        return _message(printed[-1])
    return " ".join(text.removeprefix("npm error ") for text in texts if text.startswith("npm error "))


def _message(line: str) -> str:
    return _LOG_MESSAGE.sub(r"\1", line)
