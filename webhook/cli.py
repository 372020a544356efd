"""The ``webhook`` command: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import os
import sys
from datetime import datetime

import click

from webhook import __version__
from webhook.audit import checks as audit
from webhook.audit import stripe as audit_stripe
from webhook.commands import doctor, parked
from webhook.commands.endpoint import EndpointError
from webhook.commands.endpoint_cli import endpoint_commands
from webhook.commands.exit_codes import FOUND, OK, errors_in_one_line, returned_exit_code
from webhook.commands.parked import NotParkedError
from webhook.commands.text_option import TextParameter
from webhook.commands.time_option import TimeParameter
from webhook.dev import demo, server
from webhook.dev.errors import DevError, PostgresError
from webhook.ledger import migrate
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.migrate import MigrationError
from webhook.reconcile import run as reconcile
from webhook.reconcile.run import ReconcileError
from webhook.server import command as serve
from webhook.settings import read_migration_database_url, read_server_settings, read_settings
from webhook.stripe_api.errors import StripeUnavailableError

_ERRORS = (
    DevError,
    EndpointError,
    LedgerUnavailableError,
    MigrationError,
    NotParkedError,
    PostgresError,
    ReconcileError,
    StripeUnavailableError,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="webhook")
def commands() -> None:
    """Turn Stripe's webhook events into credits in Postgres.

    \b
    Example:
      webhook doctor
    """


@commands.command("dev")
@click.option("--port", default=4242, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def dev_command(port: int) -> None:
    """Serve on this machine, with an embedded Postgres, until Ctrl-C.

    \b
    Example:
      webhook dev --port 4242

    If DATABASE_URL is set, that database is used instead. Data and secrets are kept in the directory .dev. If
    root runs this in a directory that only root can enter, the data is in /var/lib/stripe-credits-webhook.
    """
    server.run(port)


@commands.command("demo")
@click.option("--refund", is_flag=True, help="Deliver a refund of a quarter of the money before its sale.")
def demo_command(*, refund: bool) -> None:
    """Send a signed sale to a running `webhook dev`, three times.

    \b
    Example:
      webhook demo --refund

    It finds the worker by the directory .dev of the current directory. No Stripe account is needed.
    """
    demo.run(refund=refund)


@commands.command("migrate")
@click.option(
    "--history",
    type=click.Choice(migrate.HISTORIES),
    default="billing",
    show_default=True,
    help="Where applied migrations are recorded. supabase: in the CLI's table, if the project has no other migrations.",
)
@click.option("--plain-postgres", is_flag=True, help="First add Supabase's roles, auth.users and auth.uid().")
@returned_exit_code(*_ERRORS)
def migrate_command(history: str, *, plain_postgres: bool) -> int:
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
    return OK


@commands.command("serve")
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


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: one object per line.")


@commands.command("parked")
@click.argument("event_id", required=False)
@_json_option
def parked_command(event_id: str | None, *, as_json: bool) -> None:
    """List the parked events, or show one with its payload.

    \b
    Example:
      webhook parked evt_123

    If the output is not a terminal, each event is one line: id, reason and age, separated by tabs. A resolved event
    shows its resolution. The exit code is 1 if EVENT_ID was never parked.
    """
    if event_id:
        parked.show(event_id, as_json=as_json)
    else:
        parked.show_all(as_json=as_json)


@commands.command("retry")
@click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
@returned_exit_code(*_ERRORS)
def retry_command(event_ids: tuple[str, ...]) -> int:
    """Settle parked events that can be settled now.

    \b
    Example:
      webhook retry

    It tries the given events, by default all. Exit codes: 0 = none is parked any more, 1 = some are, 2 = an error, or a
    given event is not parked.
    """
    return OK if parked.retry(event_ids) else FOUND


@commands.command("discard")
@click.argument("event_ids", nargs=-1, required=True, metavar="EVENT_ID...")
@click.option("--reason", required=True, type=TextParameter(), help="Why. It is kept for ever: enter no personal data.")
@click.option(
    "--by",
    metavar="NAME",
    type=TextParameter(),
    help="Your name. Default: the system user. The database login is added.",
)
@returned_exit_code(*_ERRORS)
def discard_command(event_ids: tuple[str, ...], reason: str, by: str | None) -> int:
    """Remove parked events from the list without settling them.

    \b
    Example:
      webhook discard evt_123 --reason "a test purchase"

    The payload is deleted. `webhook parked EVENT_ID` shows who discarded the event, when and why. A discarded event
    never returns to the list. If Stripe delivers it again, it is settled if possible. Other events of its sale are not
    affected. If one of the given events is not parked, none is discarded and the exit code is 2.
    """
    parked.discard(event_ids, reason, by)
    return OK


@commands.command("reconcile")
@click.option(
    "--since",
    type=TimeParameter(),
    help="Start: 3d, 12h, 2w, or a date. Default: the end of the last run. Sales paid before it are not granted.",
)
@click.option(
    "--until",
    type=TimeParameter(),
    help="End. Default: now. 5m = five minutes ago, which leaves out webhooks in flight.",
)
@click.option("--dry-run", is_flag=True, help="Report what is missing and change nothing.")
@_json_option
@returned_exit_code(*_ERRORS)
def reconcile_command(since: datetime | None, until: datetime | None, *, dry_run: bool, as_json: bool) -> int:
    """Compare the ledger with Stripe and record what is missing.

    \b
    Example:
      webhook reconcile --since 3d

    It finds sales, refunds and disputes whose webhooks never arrived, also refunds and disputes of older sales. It
    needs STRIPE_API_KEY. It is safe beside live deliveries, and can run as often as you like.

    Exit codes: 0 = nothing was missing, 1 = something was missing and is now recorded or parked (with --dry-run: would
    be), 2 = not everything could be compared.
    """
    return reconcile.run(since=since, until=until, dry_run=dry_run, as_json=as_json)


@commands.command("audit")
@click.option("--stripe", is_flag=True, help="Also compare each payment's money with Stripe. Needs STRIPE_API_KEY.")
@click.option("--since", type=TimeParameter(), help="With --stripe: payments made since then. Default: 30d.")
@click.option("--until", type=TimeParameter(), help="With --stripe: payments made before then. Default: now.")
@_json_option
@returned_exit_code(*_ERRORS)
def audit_command(since: datetime | None, until: datetime | None, *, stripe: bool, as_json: bool) -> int:
    """Check that the ledger adds up and matches the recorded facts.

    \b
    Example:
      webhook audit --stripe --since 7d

    It changes nothing and can run beside live deliveries. It checks balances, the rows of each sale, generations and
    parked events. A finding is one line: check, subject, problem, expected value and found value.

    Exit codes: 0 = nothing was found, 1 = something was found, 2 = not everything could be checked.
    """
    if not stripe and (since or until):
        raise click.UsageError("--since and --until go with --stripe: the other checks cover everything")
    comparison = audit_stripe.comparison(since, until) if stripe else None
    return OK if audit.run(comparison, as_json=as_json) else FOUND


@commands.command("doctor")
def doctor_command() -> None:
    """Check settings, database, permissions and the Stripe endpoint.

    \b
    Example:
      webhook doctor

    It changes nothing and prints no secret. Each check is one line that starts with ok, fail or skipped. The exit code
    is 1 if a check fails. If a worker runs on PORT (default 8000), it also reports the deliveries per signing secret.
    """
    sys.exit(OK if doctor.run() else FOUND)


commands.add_command(endpoint_commands)


def main() -> None:
    """Run the command line; what the ``webhook`` program calls."""
    with errors_in_one_line(*_ERRORS):
        commands()
