"""A program that behaves like the Stripe CLI: its output, its errors, and the signed events that it forwards.

Run as a script, it is the CLI. It reads its events from a named pipe: one line of JSON each, or ``die``.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click
from stripe import WebhookSignature

SECRET = "whsec_ofthestripecli"
KEY = "sk_test_51ofthetests"
NO_KEY = """You have not configured API keys yet
  If you already have a key: set STRIPE_API_KEY or pass --api-key <key>.
  To authenticate to an existing account: run `stripe login` (outputs a browser URL for the user)."""
READY = "Ready! You are using Stripe API Version [2026-10-28.endive]. Your webhook signing secret is {} (^C to quit)"
EXPIRED = """Authorization failed, status=401, body={
  "error": {
    "code": "api_key_expired",
    "message": "Expired API Key provided: sk_test_***sted",
    "type": "invalid_request_error"
  }
}"""
NOW = "2026-11-26 12:00:00"


@dataclass(frozen=True)
class FakeCli:
    """The fake program in a folder, its pipe of events, and its log of calls."""

    folder: Path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The arguments and the environment of each call, oldest first."""
        return [json.loads(line) for line in (self.folder / "calls").read_text("utf-8").splitlines()]

    def send(self, *lines: str) -> None:
        """Let the running CLI forward these events."""
        with (self.folder / "events").open("w", encoding="utf-8") as pipe:
            pipe.writelines(f"{line}\n" for line in lines)


def install(folder: Path, name: str = "stripe") -> FakeCli:
    """Put the program into ``folder``. As npm's is, it is a script that waits for the CLI itself."""
    os.mkfifo(folder / "events")
    support = Path(__file__).parents[1]
    script = f'#!/bin/sh\nPYTHONPATH={support} {sys.executable} -m support.stripe_cli "{folder}" "$@"\nexit $?\n'
    (folder / name).write_text(script, "utf-8")
    (folder / name).chmod(0o755)
    return FakeCli(folder)


def main(folder: Path, arguments: list[str]) -> None:
    with (folder / "calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps({"arguments": arguments, "environment": dict(os.environ), "pid": os.getpid()}) + "\n")
    key = os.environ.get("STRIPE_API_KEY", "")
    if not key and not (folder / "login").exists():
        sys.exit(NO_KEY)
    if key.endswith("expired"):
        sys.exit(EXPIRED)
    if "--print-secret" in arguments:
        click.echo(SECRET)
        return
    click.echo(f"Getting ready...\n{READY.format(SECRET)}", err=True)
    forward(folder / "events", arguments[arguments.index("--forward-to") + 1])


def forward(pipe: Path, url: str) -> None:
    while True:
        for line in pipe.read_text("utf-8").splitlines():
            if line == "die":
                sys.exit('time="Thu, 26 Nov 2026 12:00:00 UTC" level=fatal msg="session expired, terminating"')
            event = json.loads(line)
            click.echo(f"{NOW}   --> {event['type']} [{event['id']}]")
            click.echo(f"{NOW}  <--  [{post(url, line)}] POST {url} [{event['id']}]")


def post(url: str, body: str) -> int:
    signature = WebhookSignature.generate_signature_header(body, SECRET)
    headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
    request = urllib.request.Request(url, body.encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
