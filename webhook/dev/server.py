"""``webhook dev``: the worker and its database on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import click
import requests

from webhook.dev import postgres, supervise
from webhook.dev.errors import DevError
from webhook.dev.http import loopback_session
from webhook.dev.ports import check_port
from webhook.dev.state import DIRECTORY, DevServer, announced, locked, stored_secret
from webhook.dev.stripe_cli import Listener, StripeCli, find_cli
from webhook.ledger.migrate import connect, has_auth_schema, history_of, migrate
from webhook.server import command as serve
from webhook.settings import DevSettings, child_environment, is_set, read_dev_settings, read_listen_key

OWN_DATABASE = "webhook.dev.app:with_own_database()"
GIVEN_DATABASE = "webhook.dev.app:with_given_database()"
"""The applications: see :mod:`webhook.dev.app`."""
_SECONDS_TO_START = 60
_READYZ_TIMEOUT = 10
"""Seconds."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_READY = """
  Console         {console}
  Endpoint        {url}/webhook
  Database        {database_url}
  Signing secret  {secret}

  Try it          {webhook} demo    (in a second terminal)
  Stripe events   {events}
  Stop            Ctrl-C
"""


def run(port: int, *, listen: bool = False) -> None:
    """Serve on ``port`` of 127.0.0.1 until SIGINT, SIGTERM or SIGHUP.

    ``listen`` also forwards the events of a Stripe sandbox, with the Stripe CLI.

    Raises :class:`DevError`, :class:`webhook.dev.errors.PostgresError`,
    :class:`webhook.ledger.migrate.MigrationError` or :class:`webhook.settings.SettingsError`.
    """
    settings = read_dev_settings()
    for each in _SIGNALS:
        signal.signal(each, _interrupt)
    try:
        with locked() as lock:
            check_port(port, settings.port_option)
            cli, settings = _signed_by_cli(settings) if listen else (None, settings)
            with _database(settings, port, lock) as database_url:
                _serve(settings, database_url, port, lock, cli)
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _interrupt(*_: object) -> NoReturn:
    """Interrupt once: a second Ctrl-C must not break the orderly stop."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _signed_by_cli(settings: DevSettings) -> tuple[StripeCli, DevSettings]:
    """Return the Stripe CLI, and the settings with its signing secret before the others."""
    cli = find_cli(read_listen_key())
    click.echo(f"Starting {cli} …")
    secrets = (cli.signing_secret(), *(settings.webhook_secrets or _stored_secrets()))
    return cli, replace(settings, webhook_secrets=secrets)


@contextmanager
def _database(settings: DevSettings, port: int, lock: int) -> Iterator[str]:
    """Yield the URL of a database with the current schema: DATABASE_URL, or the embedded one."""
    if settings.database_url:
        with connect(settings.migration_database_url) as connection:
            plain, history = not has_auth_schema(connection), history_of(connection)
        _migrate(settings.migration_database_url, history=history, plain_postgres=plain)
        yield settings.database_url
        return
    directory = (DIRECTORY / "postgres").absolute()
    click.echo(f"Starting Postgres in {DIRECTORY}/postgres …")
    # Its port is the same at each start: other programs may store this URL.
    with postgres.running(directory, port=port + 1, keep_open=[lock]) as superuser_url:
        password = stored_secret("database_password")
        postgres.prepare(superuser_url, password)
        url = _with_login(superuser_url, postgres.ADMIN, password)
        _migrate(url, history="billing", plain_postgres=False)
        postgres.grant_operator(url)
        yield url


def _migrate(url: str, *, history: str, plain_postgres: bool) -> None:
    for name in migrate(url, history=history, plain_postgres=plain_postgres).applied:
        click.echo(f"Applied {name}")


def _with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


def _stored_secrets() -> tuple[str, ...]:
    return (stored_secret("signing_secret", "whsec_"),)


def _serve(settings: DevSettings, database_url: str, port: int, lock: int, cli: StripeCli | None) -> None:
    webhook_secrets = settings.webhook_secrets or _stored_secrets()
    server = DevServer(f"http://127.0.0.1:{port}", database_url, webhook_secrets[0], os.getpid())
    is_own = not settings.database_url
    environment = child_environment(
        {
            "DATABASE_URL": database_url,
            "STRIPE_WEBHOOK_SECRET": ",".join(webhook_secrets),
            "STRIPE_LIVEMODE": str(settings.livemode).lower(),
            "PORT": str(port),
            "WEB_CONCURRENCY": "1",
            "LOG_FORMAT": "text",
        },
        # Operators of the embedded database must not act on a real one.
        without=("GUNICORN_", "OPERATOR_DATABASE_URL") if is_own else ("GUNICORN_",),
    )
    options = ("--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5", "--log-level", "warning")
    command = serve.gunicorn(*options, OWN_DATABASE if is_own else GIVEN_DATABASE)
    gunicorn = supervise.start(command, environment=environment, keep_open=[lock])
    try:
        _wait_until_ready(gunicorn, f"{server.url}/readyz")
        with announced(server):
            click.echo(_ready(server, webhook_secrets, _console(server, settings), is_listening=cli is not None))
            _wait(gunicorn, cli.listen(f"{server.url}/webhook") if cli else None)
    finally:
        gunicorn.stop()


def _wait(gunicorn: supervise.SupervisedProcess, listener: Listener | None) -> NoReturn:
    """Wait until a process ends by itself, and raise :class:`DevError` with the cause."""
    try:
        ended = supervise.first_to_end(gunicorn, *([listener.program] if listener else ()))
        if listener and ended is listener.program:
            raise DevError(listener.cause())
        raise DevError(f"gunicorn ended by itself, with exit code {gunicorn.exit_code}")
    finally:
        if listener:
            listener.stop()


def _wait_until_ready(gunicorn: supervise.SupervisedProcess, url: str) -> None:
    answer = "no answer"
    deadline = time.monotonic() + _SECONDS_TO_START
    with loopback_session() as session:
        while time.monotonic() < deadline:
            if gunicorn.exit_code is not None:
                raise DevError(f"gunicorn ended with exit code {gunicorn.exit_code}: its messages are above")
            try:
                response = session.get(url, timeout=_READYZ_TIMEOUT)
            except requests.RequestException as error:
                answer = str(error)
            else:
                if response.status_code == HTTPStatus.OK:
                    return
                answer = response.text.strip()
            time.sleep(0.05)
    raise DevError(f"the server is not ready after {_SECONDS_TO_START} s: {answer}")


def _console(server: DevServer, settings: DevSettings) -> str:
    if settings.database_url and not is_set("CONSOLE_TOKENS"):
        return "closed with a DATABASE_URL: set CONSOLE_TOKENS, see `webhook console token --help`"
    return f"{server.url}    (open it in a browser)"


def _ready(server: DevServer, webhook_secrets: tuple[str, ...], console: str, *, is_listening: bool) -> str:
    local = Path(".venv/bin/webhook")
    return _READY.format(
        url=server.url,
        console=console,
        database_url=server.database_url,
        secret=", ".join(webhook_secrets),
        webhook=local if local.exists() else "webhook",
        events="forwarded by the Stripe CLI" if is_listening else "start again with --listen (make dev LISTEN=1)",
    ).rstrip()
