"""The commands that check: reconcile, audit, doctor: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from webhook.audit import checks as audit
from webhook.audit import stripe as audit_stripe
from webhook.cli.exit_codes import FOUND, OK, command
from webhook.cli.options import json_option
from webhook.cli.time_option import TimeParameter
from webhook.commands import doctor
from webhook.events.fields import IDENTIFIER
from webhook.reconcile import named as reconcile_named
from webhook.reconcile import run as reconcile

_ALERT_AFTER = timedelta(hours=1)
"""How long an event may be parked before doctor --alerts reports it."""


@command("reconcile")
@click.argument("names", nargs=-1, metavar="[ID]...")
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
@json_option
def reconcile_command(
    names: tuple[str, ...], since: datetime | None, until: datetime | None, *, dry_run: bool, as_json: bool
) -> int:
    """Compare the ledger with Stripe and record what is missing.

    \b
    Example:
      webhook reconcile --since 3d
      webhook reconcile pi_123

    It finds sales, refunds and disputes whose webhooks never arrived, also refunds and disputes of older sales. It
    needs STRIPE_API_KEY. It is safe beside live deliveries, and can run as often as you like.

    With an ID, it reads one sale, however old: the session, payments, invoice, refunds and disputes that belong to the
    object. An ID is a session (cs_), payment (pi_), invoice (in_), invoice payment (inpay_), charge (ch_, py_), refund
    (re_, pyr_), dispute (dp_, du_) or event (evt_, for 30 days, or while it is parked). A subscription or customer has
    many sales: name one of its invoices or payments.

    Exit codes: 0 = nothing was missing, 1 = something was missing and is now recorded or parked (with --dry-run: would
    be), or an event of the named sale is still parked, 2 = not everything could be compared.
    """
    if names:
        _require_names(names, since, until)
        return reconcile_named.run(names, dry_run=dry_run, as_json=as_json)
    return reconcile.run(since=since, until=until, dry_run=dry_run, as_json=as_json)


def _require_names(names: tuple[str, ...], since: datetime | None, until: datetime | None) -> None:
    if since or until:
        raise click.UsageError("--since and --until are for runs without an ID: a named sale may be of any age")
    for name in names:
        if not IDENTIFIER.fullmatch(name):
            raise click.UsageError(f"{name!r} is not an id of Stripe, such as pi_123")


@command("audit")
@click.option("--stripe", is_flag=True, help="Also compare each payment's money with Stripe. Needs STRIPE_API_KEY.")
@click.option("--since", type=TimeParameter(), help="With --stripe: payments made since then. Default: 30d.")
@click.option("--until", type=TimeParameter(), help="With --stripe: payments made before then. Default: now.")
@json_option
def audit_command(since: datetime | None, until: datetime | None, *, stripe: bool, as_json: bool) -> int:
    """Check that the ledger adds up and matches the recorded facts.

    \b
    Example:
      webhook audit --stripe --since 7d

    It changes nothing and can run beside live deliveries. It checks balances, the rows of each sale, generations, holds
    and parked events. A finding is one line: check, subject, problem, expected value and found value.

    Exit codes: 0 = nothing was found, 1 = something was found, 2 = not everything could be checked.
    """
    if not stripe and (since or until):
        raise click.UsageError("--since and --until go with --stripe: the other checks cover everything")
    comparison = audit_stripe.comparison(since, until) if stripe else None
    return OK if audit.run(comparison, as_json=as_json) else FOUND


@command("doctor")
@click.option("--alerts", is_flag=True, help="For cron: print only what is wrong, and nothing if all is well.")
@click.option(
    "--older-than",
    type=TimeParameter(),
    help="With --alerts: report events that have been parked for longer. Default: 1h.",
)
def doctor_command(older_than: datetime | None, *, alerts: bool) -> int:
    """Check settings, database, permissions and the Stripe endpoint.

    \b
    Example:
      webhook doctor

    It changes nothing and prints no secret. Each check is one line that starts with ok, fail or skipped. The exit code
    is 1 if a check fails. If a worker runs on PORT (default 8000), it also reports the deliveries per signing secret.

    With --alerts, the exit code is 1 if a check fails or an event has been parked for longer than --older-than, and 2
    if the database or Stripe did not answer.
    """
    if alerts:
        return doctor.alert(older_than or datetime.now(UTC) - _ALERT_AFTER)
    if older_than:
        raise click.UsageError("--older-than goes with --alerts: without it, every parked event counts")
    return OK if doctor.run() else FOUND


COMMANDS = (reconcile_command, audit_command, doctor_command)
