"""The ``webhook`` command."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NoReturn

import click

from webhook import __version__
from webhook.audit import checks as audit
from webhook.audit import stripe as audit_stripe
from webhook.commands import doctor, endpoint, parked, rotation
from webhook.commands.endpoint import AmbiguousEndpointError, EndpointError
from webhook.commands.parked import NotParkedError
from webhook.commands.time_option import Moment
from webhook.dev import demo
from webhook.dev import server as dev
from webhook.dev.errors import DevError, PostgresError
from webhook.ledger import migrate
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.migrate import MigrationError
from webhook.reconcile import run as reconcile
from webhook.reconcile.run import ReconcileError
from webhook.server import command as serve
from webhook.settings import (
    SettingsError,
    read_migration_database_url,
    read_operator_key,
    read_server_settings,
    read_settings,
)
from webhook.stripe_api.endpoints import StripeOperator
from webhook.stripe_api.errors import StripeUnavailableError

_FAILURES = (
    DevError,
    EndpointError,
    LedgerUnavailableError,
    MigrationError,
    NotParkedError,
    PostgresError,
    ReconcileError,
    StripeUnavailableError,
)

FAILURE = 1
USAGE_ERROR = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="webhook")
def commands() -> None:
    """Turn Stripe's webhook events into credits in Postgres."""


@commands.command("dev")
@click.option("--port", default=4242, show_default=True, type=click.IntRange(1, 65535), help="Where to listen.")
def dev_command(port: int) -> None:
    """Serve on this machine, with its own Postgres, until Ctrl-C.

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
    """Bring the database's schema up to date.

    The database is that of MIGRATION_DATABASE_URL, else DATABASE_URL.
    """
    done = migrate.migrate(read_migration_database_url(), history=history, plain_postgres=plain_postgres)
    for name in done.applied:
        click.echo(f"Applied {name}")
    click.echo(f"Schema {done.version} is up to date")


@commands.command("serve")
def serve_command() -> None:
    """Serve deliveries with gunicorn.

    It listens on PORT, in WEB_CONCURRENCY processes. GUNICORN_CMD_ARGS may hold further options of gunicorn.
    """
    read_server_settings()
    read_settings()
    command = serve.gunicorn()
    os.execv(command[0], command)  # noqa: S606


@commands.command("demo")
@click.option("--refund", is_flag=True, help="Deliver a refund of a quarter of the money before its sale.")
def demo_command(*, refund: bool) -> None:
    """Send a signed sale to the running `webhook dev`, three times.

    No Stripe account is needed.
    """
    demo.run(refund=refund)


_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@contextmanager
def _failure_is_no_answer() -> Iterator[None]:
    """For commands whose exit code 1 is an answer: end with 2 where there is none, whatever the reason."""
    try:
        with _ending_like_ctrl_c():
            yield
    except (SettingsError, click.ClickException):
        raise
    except KeyboardInterrupt:
        _end_without_answer("interrupted")
    except (*_FAILURES, OSError) as error:  # such as a pipe that nobody reads any more
        _end_without_answer(str(error))
    except Exception as error:  # noqa: BLE001 - a defect, which Python would end with 1
        with suppress(OSError):
            traceback.print_exc()
        _end_without_answer(f"a defect: {type(error).__name__}")
    finally:
        _forget_what_cannot_be_written()


def _end_without_answer(message: str) -> NoReturn:
    with suppress(OSError):
        click.echo(f"webhook: {message}", err=True)
    sys.exit(USAGE_ERROR)


def _forget_what_cannot_be_written() -> None:
    """Python would write it once more at its end, fail, and end with 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, io.StringIO())


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let a host that stops the process, and a terminal that is closed, end it as an operator would.

    What is ignored, as nohup has it, stays so.
    """
    signals = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in signals:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


@commands.command("parked")
@click.argument("event_id", required=False)
@_json_option
def parked_command(event_id: str | None, *, as_json: bool) -> None:
    """List the events that could not be settled, or show one whole.

    On a terminal a table; piped, a line each: event id, reason and age, separated by tabs. An event named is shown with
    its payload, and once it is resolved without, with how, when, by whom and why instead.
    """
    if event_id:
        parked.show(event_id, as_json=as_json)
    else:
        parked.show_all(as_json=as_json)


@commands.command("retry")
@click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
def retry_command(event_ids: tuple[str, ...]) -> None:
    """Settle the parked events that can be settled now.

    All of them, or those named. Exit code 0 when none of them is parked any more, 1 when some are, 2 when that
    cannot be found out.
    """
    with _failure_is_no_answer():
        if not parked.retry(event_ids):
            sys.exit(FAILURE)


def _one_line(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not (text.strip() and text.isprintable()):
        raise click.BadParameter("say something, in one line of text")
    return text


@commands.command("discard")
@click.argument("event_ids", nargs=-1, required=True, metavar="EVENT_ID...")
@click.option("--why", required=True, callback=_one_line, help="Kept for good: no personal data.")
@click.option("--by", metavar="NAME", callback=_one_line, help="Who you are. Default: the user of this machine.")
def discard_command(event_ids: tuple[str, ...], why: str, by: str | None) -> None:
    """Take parked events off the list that are not to be settled.

    Their payloads are dropped. Who did it, when and why is kept: webhook parked EVENT_ID shows it. The event never
    comes back onto the list. It is settled nevertheless if Stripe delivers it again and it can be by then, and so
    are other events of its sale.

    Exit code 2, and nothing is discarded, when one of them is not parked.
    """
    with _failure_is_no_answer():
        parked.discard(event_ids, why, by)


@commands.command("reconcile")
@click.option(
    "--since",
    type=Moment(),
    help="From when: 3d, 12h, 2w, or a date. Default: where the last run ended. What was paid before is not granted.",
)
@click.option(
    "--until",
    type=Moment(),
    help="Until when. Default: now. Of the last minutes, webhooks may be on their way: 5m leaves them to these.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what is missing; change nothing.")
@_json_option
def reconcile_command(since: datetime | None, until: datetime | None, *, dry_run: bool, as_json: bool) -> None:
    """Compare the ledger with Stripe, and record what is missing.

    That is what webhooks that never arrived would have told. Looks at what happened since then: sales, refunds and
    disputes, also of objects that are older. Needs STRIPE_API_KEY. Safe beside live deliveries, and as often as you
    like. Exit code 0 when nothing was missing, 1 when something was (and is recorded now, or would be), 2 when not
    all could be looked at.
    """
    with _failure_is_no_answer():
        sys.exit(reconcile.run(since=since, until=until, dry_run=dry_run, as_json=as_json))


@commands.command("audit")
@click.option("--stripe", is_flag=True, help="Compare each payment's money with Stripe, too. Needs STRIPE_API_KEY.")
@click.option("--since", type=Moment(), help="With --stripe: payments made since then. Default: 30d.")
@click.option("--until", type=Moment(), help="With --stripe: payments made before then. Default: now.")
@_json_option
def audit_command(since: datetime | None, until: datetime | None, *, stripe: bool, as_json: bool) -> None:
    """Look whether the ledger adds up and fits Stripe's events.

    It changes nothing, and needs no quiet. Balances against ledger rows, each sale's rows against its facts, rows
    that fit no facts, generations given back, and parked events. A line for each finding: user, payment or row,
    what it is, what was expected, what was found.

    Exit code 0 when nothing is found, 1 when something is, 2 when that cannot be found out.
    """
    if not stripe and (since or until):
        raise click.UsageError("--since and --until go with --stripe: the rest looks at everything")
    with _failure_is_no_answer():
        if not audit.run(audit_stripe.comparison(since, until) if stripe else None, as_json=as_json):
            sys.exit(FAILURE)


@commands.command("doctor")
def doctor_command() -> None:
    """Look whether all is well: settings, database, rights, Stripe.

    It changes nothing, and prints no secret. One line each; exit code 1 when something is wrong.
    """
    if not doctor.run():
        sys.exit(FAILURE)


@commands.group("endpoint")
def endpoint_commands() -> None:
    """Make, check and renew the endpoint at Stripe."""


_api_key_option = click.option(
    "--api-key", metavar="KEY", help="Used once and never stored. Default: STRIPE_API_KEY, which others cannot see."
)
_url_option = click.option("--url", metavar="URL", help="The endpoint's URL, in place of its id.")
_connect_help = "For the events of connected accounts (STRIPE_ACCOUNT), not for those of your own."


@endpoint_commands.command("create")
@click.option("--url", required=True, metavar="https://…/webhook", help="Where the worker is reached from outside.")
@_api_key_option
@click.option("--again", is_flag=True, help="Make another one where the URL has one.")
@click.option("--connect", is_flag=True, help=_connect_help)
def endpoint_create_command(url: str, api_key: str | None, *, again: bool, connect: bool) -> None:
    """Make an endpoint, and print its id and signing secret.

    It delivers the events that this worker reads. The key needs the right Webhook Endpoints: Write.
    """
    endpoint.create(url, api_key, again=again, connect=connect)


@endpoint_commands.command("check")
@click.argument("endpoint_id", required=False)
@_url_option
@_api_key_option
def endpoint_check_command(endpoint_id: str | None, url: str | None, api_key: str | None) -> None:
    """Compare an endpoint with what this worker wants.

    It is named by its id or its URL, else it is the only one whose URL ends with /webhook. Exit code 0 when all is
    right, 1 when something differs, 2 when that cannot be found out.
    """
    try:
        is_right = endpoint.check(endpoint_id or url, api_key)
    except (AmbiguousEndpointError, StripeUnavailableError) as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(USAGE_ERROR)
    sys.exit(0 if is_right else FAILURE)


@endpoint_commands.command("roll")
@click.argument("endpoint_id", required=False)
@_url_option
@_api_key_option
@click.option("--begin", "step", flag_value="begin", help="Only make the second endpoint, and print its secret.")
@click.option("--finish", "step", flag_value="finish", help="Only prove both secrets, and delete the old endpoint.")
@click.option("--connect/--no-connect", default=None, help=_connect_help)
@click.option("--yes", is_flag=True, help="Delete the old endpoint without asking, once both are proved.")
@click.option("--ignore-undelivered", is_flag=True, help="Delete it though Stripe has events left to deliver.")
def endpoint_roll_command(  # noqa: PLR0913 - one for each option
    endpoint_id: str | None,
    url: str | None,
    api_key: str | None,
    step: str | None,
    *,
    connect: bool | None,
    yes: bool,
    ignore_undelivered: bool,
) -> None:
    """Change the signing secret, with no delivery lost.

    A second endpoint takes the first one's place, as Stripe's API gives none a new secret. You deploy the worker with
    both secrets in STRIPE_WEBHOOK_SECRET; events signed with each are then delivered to it; and only when it verifies
    both is the first endpoint deleted. Without --begin and --finish, both steps are done, and you are asked in between.

    The key needs the rights Webhook Endpoints: Write and Events: Read.
    """
    place = endpoint_id or url
    match step:
        case "begin":
            rotation.begin(StripeOperator(read_operator_key(api_key)), place, connect=connect)
        case "finish":
            operator = StripeOperator(read_operator_key(api_key))
            rotation.finish(operator, place, yes=yes, undelivered=ignore_undelivered)
        case _:
            rotation.roll(place, api_key, connect=connect, yes=yes, undelivered=ignore_undelivered)


def main() -> None:
    """Run the command line; what fails ends it with one line, a bad setting with exit code 2."""
    try:
        commands()
    except SettingsError as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(USAGE_ERROR)
    except _FAILURES as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(FAILURE)
