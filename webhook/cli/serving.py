"""The commands that serve: dev, demo, migrate, serve: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import os

import click

from webhook.cli.exit_codes import command
from webhook.dev import demo, server
from webhook.ledger import migrate
from webhook.server import command as serve
from webhook.settings import read_migration_database_url, read_server_settings, read_settings


@command("dev")
@click.option("--port", default=4242, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--listen", is_flag=True, help="Forward the events of your Stripe sandbox with the Stripe CLI.")
def dev_command(port: int, *, listen: bool) -> None:
    """Serve on this machine, with an embedded Postgres, until Ctrl-C.

    \b
    Example:
      webhook dev --port 4242

    If DATABASE_URL is set, that database is used instead. Data and secrets are kept in the directory .dev. If
    root runs this in a directory that only root can enter, the data is in /var/lib/stripe-credits-webhook.

    --listen needs the Stripe CLI: `stripe`, or npx of Node.js. The CLI uses a test-mode STRIPE_API_KEY, or else its own
    login (npx @stripe/cli login). Its signing secret is used beside the others, so nothing has to be copied.
    """
    server.run(port, listen=listen)


@command("demo")
@click.option("--refund", is_flag=True, help="Deliver a refund of a quarter of the money before its sale.")
@click.option("--spend", is_flag=True, help="Then spend: one video job is captured, another dies and its hold expires.")
def demo_command(*, refund: bool, spend: bool) -> None:
    """Send a signed sale to a running `webhook dev`, three times.

    \b
    Example:
      webhook demo --spend

    It finds the worker by the directory .dev of the current directory. No Stripe account is needed.
    """
    demo.run(refund=refund, spend=spend)


@command("migrate")
@click.option(
    "--history",
    type=click.Choice(migrate.HISTORIES),
    default="billing",
    show_default=True,
    help="Where applied migrations are recorded. supabase: in the CLI's table, if the project has no other migrations.",
)
@click.option("--plain-postgres", is_flag=True, help="First add Supabase's roles, auth.users and auth.uid().")
def migrate_command(history: str, *, plain_postgres: bool) -> None:
    """Bring the database schema up to date.

    \b
    Example:
      webhook migrate --plain-postgres

    It connects to MIGRATION_DATABASE_URL, by default DATABASE_URL. If another application uses a name of the schema, it
    changes nothing. It also adds rows that public.users lacks, and corrects its email addresses.
    """
    done = migrate.migrate(read_migration_database_url(), history=history, plain_postgres=plain_postgres)
    for name in done.applied:
        click.echo(f"Applied {name}")
    if done.copied:
        click.echo(f"Added or corrected {done.copied} rows of public.users")
    click.echo(f"Schema {done.version} is up to date")


@command("serve")
def serve_command() -> None:
    """Serve deliveries with gunicorn.

    \b
    Example:
      webhook serve

    It listens on PORT with WEB_CONCURRENCY processes. GUNICORN_CMD_ARGS can hold more options of gunicorn.
    """
    read_server_settings()
    read_settings()
    command = serve.gunicorn()
    os.execv(command[0], command)  # noqa: S606


COMMANDS = (dev_command, demo_command, migrate_command, serve_command)
