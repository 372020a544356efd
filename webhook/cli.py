"""The ``webhook`` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from webhook import __version__, demo, dev, migrate, parked
from webhook.dev_folder import DevError
from webhook.ledger import LedgerUnavailable
from webhook.migrate import MigrationError
from webhook.parked import NotParked
from webhook.postgres_files import PostgresError
from webhook.settings import (
    SettingsError,
    read_migration_database_url,
    read_server_settings,
    read_settings,
)
from webhook.stripe_api import StripeUnavailable

FAILURE = 1
USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="webhook")
def commands() -> None:
    """Turn Stripe's webhook events into credits in Postgres."""


@commands.command("dev")
@click.option("--port", default=4242, show_default=True, type=click.IntRange(1, 65535), help="Where to listen.")
def dev_command(port: int) -> None:
    """Serve on this machine, with a Postgres of its own, until Ctrl-C.

    DATABASE_URL, if set, names the database to use instead. Everything that is kept between starts is in .dev/
    of the current folder.
    """
    dev.run(port)


@commands.command("migrate")
@click.option(
    "--history",
    type=click.Choice(migrate.HISTORIES),
    default="billing",
    show_default=True,
    help="Whose table lists what was applied: our own, or the Supabase CLI's, for a project whose only "
    "migrations are these.",
)
@click.option("--plain-postgres", is_flag=True, help="First add what Supabase has and plain Postgres lacks.")
def migrate_command(history: str, *, plain_postgres: bool) -> None:
    """Bring the schema of MIGRATION_DATABASE_URL, else DATABASE_URL, up to date."""
    done = migrate.migrate(read_migration_database_url(), history=history, plain_postgres=plain_postgres)
    for name in done.applied:
        click.echo(f"Applied {name}")
    click.echo(f"Schema {done.version} is up to date")


@commands.command("serve")
def serve_command() -> None:
    """Serve deliveries with gunicorn, on PORT, in WEB_CONCURRENCY processes.

    GUNICORN_CMD_ARGS may hold further options of gunicorn.
    """
    read_server_settings()
    read_settings()
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    os.execv(gunicorn, [gunicorn, "--config", "python:webhook.gunicorn_conf"])  # noqa: S606


@commands.command("demo")
@click.option("--refund", is_flag=True, help="Deliver a refund of a quarter of the money before its sale.")
def demo_command(*, refund: bool) -> None:
    """Send a signed sale to the running `webhook dev`, three times; no Stripe account needed."""
    demo.run(refund=refund)


@commands.command("parked")
@click.argument("event_id", required=False)
def parked_command(event_id: str | None) -> None:
    """List the events about credits that could not be settled, or show one whole.

    On a terminal a table; piped, a line each: event id, reason and age, separated by tabs.
    """
    if event_id:
        parked.show(event_id)
    else:
        parked.show_all()


@commands.command("retry")
@click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
def retry_command(event_ids: tuple[str, ...]) -> None:
    """Settle the parked events that can be settled now: all of them, or those named."""
    parked.retry(event_ids)


def main() -> None:
    """Run the command line; what fails ends it with one line, a bad setting with exit code 2."""
    try:
        commands()
    except SettingsError as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(USAGE_ERROR)
    except (DevError, LedgerUnavailable, MigrationError, NotParked, PostgresError, StripeUnavailable) as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(FAILURE)
