"""``webhook doctor``: is everything as the worker needs it? Looks, changes nothing, and prints no secret."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import click

from webhook.commands.endpoint import READ_RIGHT, AmbiguousEndpointError, EndpointError, differences, find
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger
from webhook.ledger.schema import expected_version
from webhook.settings import (
    Environment,
    SettingsError,
    StripeSettings,
    is_set,
    read_database_url,
    read_event_scope,
    read_metrics_token,
    read_migration_database_url,
    read_server_settings,
    read_stripe_settings,
    read_webhook_secrets,
)
from webhook.stripe_api.endpoints import StripeOperator
from webhook.stripe_api.errors import StripeUnavailableError

OK, WRONG, SKIPPED = "ok", "wrong", "skipped"

_OPTIONAL = "thin events and reconcile"
_RIGHTS = (
    ("/v1/checkout/sessions", "Checkout Sessions: Read", "credits from prices in Checkout, and reconcile"),
    ("/v1/prices", "Prices: Read", "credits from prices"),
    ("/v1/products", "Products: Read", "credits from products"),
    ("/v1/invoices", "Invoices: Read", "invoices of more than ten lines, and reconcile"),
    ("/v1/refunds", "Charges and Refunds: Read", "endpoints without refund.* events, and reconcile"),
    ("/v1/payment_intents", "PaymentIntents: Read", _OPTIONAL),
    ("/v1/disputes", "Disputes: Read", _OPTIONAL),
    ("/v1/events", "Events: Read", _OPTIONAL),
)
"""A list that a key may read or not, the right that it takes, and what the worker reads it for."""

_REACH = "check DATABASE_URL, and grant service_role to its login"


@dataclass(frozen=True)
class Finding:
    """What one check found: ``OK``, ``WRONG`` or ``SKIPPED``, of what, and what to do."""

    verdict: str
    text: str


Findings = Iterator[Finding]


def run(environ: Environment = os.environ) -> bool:
    """Print a line for each check, and return whether nothing is wrong."""
    well = True
    for finding in examine(environ):
        click.echo(f"{finding.verdict:<9}{finding.text}")
        well = well and finding.verdict != WRONG
    return well


def examine(environ: Environment) -> Findings:
    """Yield what each check finds; one that fails stops no other."""
    yield from _settings(environ)
    yield from _database(environ)
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
    if is_set("STRIPE_API_KEY", environ):
        readers.append(("STRIPE_API_KEY", read_stripe_settings))
    if is_set("METRICS_TOKEN", environ):
        readers.append(("METRICS_TOKEN", read_metrics_token))
    for name, read in readers:
        try:
            read(environ)
            yield Finding(OK, name)
        except SettingsError as error:
            yield Finding(WRONG, str(error))


def _database(environ: Environment) -> Findings:
    try:
        url = read_database_url(environ)
    except SettingsError:
        yield Finding(SKIPPED, "database: no usable DATABASE_URL")
        return
    with closing(Ledger(url)) as ledger:
        try:
            yield Finding(OK, f"database: reachable as {ledger.role()}")
        except LedgerUnavailableError as error:
            yield Finding(WRONG, f"database: not reachable as service_role: {error}: {_REACH}")
            return
        for check in (_schema, _row_level_security, _database_rights, _parked):
            try:
                yield from check(ledger)
            except LedgerUnavailableError as error:
                yield Finding(WRONG, f"database: {error}: run webhook migrate")


def _schema(ledger: Ledger) -> Findings:
    version, expected = ledger.schema_version(), expected_version()
    if version < expected:
        yield Finding(WRONG, f"schema: {version}, expected {expected}: run webhook migrate")
    else:
        yield Finding(OK, f"schema: {version}")


def _row_level_security(ledger: Ledger) -> Findings:
    tables = ledger.tables_without_rls()
    for table in tables:
        yield Finding(WRONG, f"row-level security: alter table {table} enable row level security")
    if not tables:
        yield Finding(OK, "row-level security: on for every table")


def _database_rights(ledger: Ledger) -> Findings:
    rights = ledger.wrong_rights()
    for right in rights:
        yield Finding(WRONG, f"rights: {right}: {'grant' if ' lacks ' in right else 'revoke'} it")
    if not rights:
        yield Finding(OK, "rights: service_role has what it needs and no more, others nothing in billing")


def _parked(ledger: Ledger) -> Findings:
    if count := ledger.parked_count():
        yield Finding(WRONG, f"parked events: {count}, see webhook parked")
    else:
        yield Finding(OK, "parked events: none")


def _stripe(environ: Environment) -> Findings:
    try:
        settings = read_stripe_settings(environ)
    except SettingsError:
        yield Finding(SKIPPED, "Stripe: no usable STRIPE_API_KEY")
        return
    if settings is None:
        for what in ("the key's mode", "the key's rights", "the endpoint's events"):
            yield Finding(SKIPPED, f"{what}: no STRIPE_API_KEY")
        return
    yield from _mode(settings, environ)
    operator = StripeOperator(settings)
    try:
        yield from _key_rights(operator)
        yield from _endpoint(operator)
    except StripeUnavailableError as error:
        yield Finding(WRONG, f"Stripe: {str(error.with_permission_hint('')).removeprefix('Stripe: ')}")
        yield Finding(SKIPPED, "what else Stripe could tell")


def _mode(settings: StripeSettings, environ: Environment) -> Findings:
    try:
        livemode = read_event_scope(environ).livemode
    except SettingsError:
        yield Finding(SKIPPED, "the key's mode: no usable STRIPE_LIVEMODE")
        return
    if settings.livemode is None:
        yield Finding(SKIPPED, "the key's mode: its name does not tell it")
    elif settings.livemode != livemode:
        key_mode, mode = ("live", "test") if settings.livemode else ("test", "live")
        yield Finding(WRONG, f"the key's mode: STRIPE_API_KEY is for {key_mode} mode, STRIPE_LIVEMODE says {mode}")
    else:
        yield Finding(OK, f"the key's mode: {'live' if livemode else 'test'}")


def _key_rights(operator: StripeOperator) -> Findings:
    """Yield what the key may read; raises :class:`StripeUnavailableError` where Stripe refuses for another reason."""
    for path, right, purpose in _RIGHTS:
        try:
            operator.try_list(path)
        except StripeUnavailableError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            verdict = SKIPPED if purpose == _OPTIONAL else WRONG
            yield Finding(verdict, f"the key's rights: {right} is missing, for {purpose}: add it to the restricted key")
        else:
            yield Finding(OK, f"the key's rights: {right}")


def _endpoint(operator: StripeOperator) -> Findings:
    try:
        endpoint = find(operator.endpoints())
    except StripeUnavailableError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        yield Finding(SKIPPED, f"the endpoint's events: the key may not look: add {READ_RIGHT}")
        return
    except AmbiguousEndpointError as error:
        yield Finding(SKIPPED, f"the endpoint's events: {error} webhook endpoint check ENDPOINT_ID")
        return
    except EndpointError as error:
        yield Finding(WRONG, f"the endpoint's events: {error}")
        return
    found = differences(endpoint)
    for difference in found:
        yield Finding(WRONG, f"the endpoint's events: {endpoint['id']}: {difference}")
    if not found:
        yield Finding(OK, f"the endpoint's events: {endpoint['id']}")
