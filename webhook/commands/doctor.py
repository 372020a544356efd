"""``webhook doctor``: check everything that the worker needs. It changes nothing and prints no secret."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import click

from webhook.commands import signing_secrets
from webhook.commands.endpoint import READ_PERMISSION, AmbiguousEndpointError, EndpointError, differences, find, notes
from webhook.commands.operator import OPERATOR_COMMANDS, operator_ledger
from webhook.commands.signing_secrets import MetricsUnavailableError
from webhook.explain.wording import counted
from webhook.ledger.errors import LedgerUnavailableError, NotOperatorError
from webhook.ledger.ledger import Ledger
from webhook.ledger.schema import expected_version
from webhook.output import silence_notice
from webhook.settings import (
    Environment,
    SettingsError,
    StripeSettings,
    is_set,
    read_console_tokens,
    read_database_url,
    read_event_scope,
    read_max_credits,
    read_metrics_token,
    read_migration_database_url,
    read_operator_database_url,
    read_server_settings,
    read_stripe_settings,
    read_webhook_secrets,
)
from webhook.stripe_api.endpoints import StripeOperator
from webhook.stripe_api.errors import StripeUnavailableError

OK, FAIL, SKIPPED = "ok", "fail", "skipped"
ALL_WELL, WRONG, NO_ANSWER = 0, 1, 2
"""Exit codes of :func:`alert`."""

_LOGIN_REMEDY = "check DATABASE_URL, and grant service_role to its login"
_OPTIONAL = "thin events and reconcile"
_KEY_PERMISSIONS = (
    ("/v1/checkout/sessions", "Checkout Sessions: Read", "credits from prices in Checkout, and reconcile"),
    ("/v1/prices", "Prices: Read", "credits from prices"),
    ("/v1/products", "Products: Read", "credits from products"),
    ("/v1/invoices", "Invoices: Read", "invoices of more than ten lines, and reconcile"),
    ("/v1/refunds", "Charges and Refunds: Read", "endpoints without refund.* events, and reconcile"),
    ("/v1/payment_intents", "PaymentIntents: Read", _OPTIONAL),
    ("/v1/disputes", "Disputes: Read", _OPTIONAL),
    ("/v1/events", "Events: Read", _OPTIONAL),
)
"""A list of Stripe's API, the permission to read it, and the features that need it."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    verdict: str
    """``OK``, ``FAIL`` or ``SKIPPED``."""
    text: str
    """The subject of the check and, if it failed, the remedy."""
    is_unanswered: bool = False
    """Whether the check got no answer from the database or Stripe."""


Findings = Iterator[Finding]


def run(environ: Environment = os.environ) -> bool:
    """Print one line per check, and return whether none failed."""
    has_failed = False
    for finding in examine(environ):
        click.echo(f"{finding.verdict:<9}{finding.text}")
        has_failed = has_failed or finding.verdict == FAIL
    return not has_failed


def alert(parked_before: datetime, environ: Environment = os.environ) -> int:
    """Print the failed checks alone, and return the exit code.

    Events count that are parked since before ``parked_before``. The code is 0 if all is well, 1 if something is wrong,
    and 2 if a check got no answer.
    """
    failures = [each for each in examine(environ, parked_before) if each.verdict == FAIL]
    for failure in failures:
        click.echo(failure.text)
    if any(failure.is_unanswered for failure in failures):
        return NO_ANSWER
    return WRONG if failures else ALL_WELL


def examine(environ: Environment, parked_before: datetime | None = None) -> Findings:
    """Yield the results of all checks; the failure of one does not stop the others.

    Parked events count if they are parked since before ``parked_before``, by default all of them.
    """
    yield from _settings(environ)
    yield from _database(environ, parked_before)
    yield from _operator(environ)
    yield from _console(environ)
    yield from _signing_secrets(environ)
    yield from _stripe(environ)


def _settings(environ: Environment) -> Findings:
    readers: list[tuple[str, Callable[[Environment], Any]]] = [
        ("DATABASE_URL", read_database_url),
        ("STRIPE_WEBHOOK_SECRET", read_webhook_secrets),
        ("STRIPE_LIVEMODE", read_event_scope),
        ("PORT and WEB_CONCURRENCY", read_server_settings),
    ]
    if is_set("MIGRATION_DATABASE_URL", environ):
        readers.append(("MIGRATION_DATABASE_URL", read_migration_database_url))
    if is_set("OPERATOR_DATABASE_URL", environ):
        readers.append(("OPERATOR_DATABASE_URL", read_operator_database_url))
    if is_set("STRIPE_API_KEY", environ):
        readers.append(("STRIPE_API_KEY", read_stripe_settings))
    if is_set("METRICS_TOKEN", environ):
        readers.append(("METRICS_TOKEN", read_metrics_token))
    if is_set("CONSOLE_TOKENS", environ):
        readers.append(("CONSOLE_TOKENS", read_console_tokens))
    if is_set("CONSOLE_MAX_CREDITS", environ):
        readers.append(("CONSOLE_MAX_CREDITS", read_max_credits))
    for name, read in readers:
        try:
            read(environ)
            yield Finding(OK, name)
        except SettingsError as error:
            yield Finding(FAIL, str(error), is_unanswered=name == "DATABASE_URL")


def _database(environ: Environment, parked_before: datetime | None) -> Findings:
    try:
        url = read_database_url(environ)
    except SettingsError:
        yield Finding(SKIPPED, "database: no usable DATABASE_URL")
        return
    with closing(Ledger(url)) as ledger:
        try:
            role, is_applied = ledger.role(), ledger.is_schema_applied()
        except LedgerUnavailableError as error:
            text = f"database: not reachable as service_role: {_with_remedy(error, _LOGIN_REMEDY)}"
            yield Finding(FAIL, text, is_unanswered=True)
            return
        yield Finding(OK, f"database: reachable as {role}")
        if not is_applied:
            yield Finding(FAIL, "schema: not applied: run webhook migrate")
            return
        parked = partial(_parked, parked_before=parked_before)
        for check in (_schema, _row_level_security, _database_permissions, _triggers, _accounts, parked):
            try:
                yield from check(ledger)
            except LedgerUnavailableError as error:
                yield Finding(FAIL, f"database: {_with_remedy(error, 'run webhook migrate')}", is_unanswered=True)


def _with_remedy(error: LedgerUnavailableError, remedy: str) -> str:
    """Return the message, with the remedy unless it contains one."""
    message = str(error)
    return message if "webhook migrate" in message else f"{message}: {remedy}"


def _schema(ledger: Ledger) -> Findings:
    version, expected = ledger.schema_version(), expected_version()
    if version < expected:
        yield Finding(FAIL, f"schema: {version}, expected {expected}: run webhook migrate")
    else:
        yield Finding(OK, f"schema: {version}")


def _row_level_security(ledger: Ledger) -> Findings:
    tables = ledger.tables_without_rls()
    for table in tables:
        yield Finding(FAIL, f"row-level security: alter table {table} enable row level security")
    if not tables:
        yield Finding(OK, "row-level security: on for every table")


def _database_permissions(ledger: Ledger) -> Findings:
    problems = ledger.permission_problems()
    for problem in problems:
        yield Finding(FAIL, f"permissions: {problem}: {'grant' if ' lacks ' in problem else 'revoke'} it")
    if not problems:
        yield Finding(
            OK, "permissions: service_role has all that it needs and no more; other roles have none in billing"
        )


def _triggers(ledger: Ledger) -> Findings:
    problems = ledger.trigger_problems()
    for problem, remedy in problems:
        yield Finding(FAIL, f"triggers: {problem}: {remedy}")
    if not problems:
        yield Finding(OK, "triggers: all there and enabled")


def _accounts(ledger: Ledger) -> Findings:
    missing, outdated = ledger.uncopied_accounts()
    if missing:
        yield Finding(FAIL, f"accounts: {missing} in auth.users without a row in public.users: run webhook migrate")
    if outdated:
        yield Finding(FAIL, f"accounts: {outdated} whose email differs in public.users: run webhook migrate")
    if not missing and not outdated:
        yield Finding(OK, "accounts: each one has its row in public.users")


def _parked(ledger: Ledger, parked_before: datetime | None) -> Findings:
    events = [event for event in ledger.parked_events() if parked_before is None or event.parked_at < parked_before]
    if not events:
        yield Finding(OK, "parked events: none")
        return
    oldest = events[0]
    since = f"{oldest.parked_at.astimezone(UTC):%Y-%m-%d %H:%M %Z}"
    subject = f"the oldest is {oldest.id} ({oldest.reason}), since {since}"
    yield Finding(FAIL, f"parked events: {len(events)}, {subject}: see webhook parked")


def _operator(environ: Environment) -> Findings:
    """Report whether an operator's commands work. The worker's own login needs no such right."""
    try:
        with operator_ledger(environ) as ledger:
            yield Finding(OK, f"operator: {ledger.login()} may use {OPERATOR_COMMANDS}")
    except NotOperatorError as error:
        if is_set("OPERATOR_DATABASE_URL", environ):
            yield Finding(FAIL, f"operator: {error}")
        else:
            yield Finding(OK, f"operator: {OPERATOR_COMMANDS} need OPERATOR_DATABASE_URL")
    except (SettingsError, LedgerUnavailableError):
        yield Finding(SKIPPED, "operator: the database is not usable")


def _console(environ: Environment) -> Findings:
    """Report the tokens of the console by role, and whether operators can change something."""
    try:
        roles = [token.role for token in read_console_tokens(environ)]
        read_max_credits(environ)
    except SettingsError:
        yield Finding(SKIPPED, "console: closed, because a setting above is bad")
        return
    if not roles:
        yield Finding(OK, "console: closed, because CONSOLE_TOKENS is not set")
        return
    count = " and ".join(counted(roles.count(role), f"{role} token") for role in sorted(set(roles)))
    try:
        with operator_ledger(environ) as ledger:
            yield Finding(OK, f"console: {count}; changes use the login {ledger.login()}")
    except NotOperatorError:
        cause = "the login is not a member of billing_operator"
        yield Finding(OK, f"console: {count}; view-only, because {cause}")
    except (SettingsError, LedgerUnavailableError):
        yield Finding(SKIPPED, f"console: {count}; the database is not usable")


def _signing_secrets(environ: Environment) -> Findings:
    try:
        for line in signing_secrets.usage_lines(environ):
            yield Finding(OK, line)
    except SettingsError:
        yield Finding(SKIPPED, "deliveries per signing secret: not read, because a setting above is missing or bad")
    except MetricsUnavailableError as error:
        yield Finding(SKIPPED, f"deliveries per signing secret: {error}")


def _stripe(environ: Environment) -> Findings:
    try:
        settings = read_stripe_settings(environ)
    except SettingsError:
        yield Finding(SKIPPED, "Stripe: no usable STRIPE_API_KEY")
        return
    if settings is None:
        for subject in ("API key mode", "API key permissions", "endpoint"):
            yield Finding(SKIPPED, f"{subject}: no STRIPE_API_KEY")
        return
    yield from _mode(settings, environ)
    operator = StripeOperator(settings, silence_notice(settings))
    try:
        yield from _key_permissions(operator)
        yield from _endpoint(operator)
    except StripeUnavailableError as error:
        text = f"Stripe: {str(error.with_permission_hint('')).removeprefix('Stripe: ')}"
        yield Finding(FAIL, text, is_unanswered=error.status != HTTPStatus.UNAUTHORIZED)
        yield Finding(SKIPPED, "the other checks at Stripe")


def _mode(settings: StripeSettings, environ: Environment) -> Findings:
    try:
        livemode = read_event_scope(environ).livemode
    except SettingsError:
        yield Finding(SKIPPED, "API key mode: no usable STRIPE_LIVEMODE")
        return
    if settings.livemode is None:
        yield Finding(SKIPPED, "API key mode: the key does not start with a prefix that names the mode")
    elif settings.livemode != livemode:
        key_mode, mode = ("live", "test") if settings.livemode else ("test", "live")
        yield Finding(FAIL, f"API key mode: STRIPE_API_KEY is for {key_mode} mode, STRIPE_LIVEMODE is for {mode} mode")
    else:
        yield Finding(OK, f"API key mode: {'live' if livemode else 'test'}")


def _key_permissions(operator: StripeOperator) -> Findings:
    """Try each list; raises :class:`StripeUnavailableError` for an error other than a missing permission."""
    for path, permission, purpose in _KEY_PERMISSIONS:
        try:
            operator.try_list(path)
        except StripeUnavailableError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            verdict = SKIPPED if purpose == _OPTIONAL else FAIL
            yield Finding(verdict, f"API key permissions: add {permission}, needed for {purpose}")
        else:
            yield Finding(OK, f"API key permissions: {permission}")


def _endpoint(operator: StripeOperator) -> Findings:
    try:
        endpoints = operator.endpoints()
        endpoint = find(endpoints)
    except StripeUnavailableError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        yield Finding(SKIPPED, f"endpoint: the key lacks a permission: add {READ_PERMISSION}")
        return
    except AmbiguousEndpointError as error:
        yield Finding(SKIPPED, f"endpoint: {error}: run webhook endpoint check ENDPOINT_ID")
        return
    except EndpointError as error:
        yield Finding(FAIL, f"endpoint: {error}")
        return
    found = differences(endpoint)
    for difference in found:
        yield Finding(FAIL, f"endpoint: {endpoint['id']}: {difference}")
    if not found:
        yield Finding(OK, f"endpoint: {endpoint['id']}")
    for note in notes(endpoint, endpoints):
        yield Finding(OK, f"endpoint: {endpoint['id']}: {note}")
