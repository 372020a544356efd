"""The worker's settings: the one place that reads the environment.

Each command asks only for what it uses; a missing or bad value raises :class:`SettingsError`, whose
message is one line that names the variable.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from webhook.events.event import EventScope

Environment = Mapping[str, str]

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PORTS = re.compile(r"[0-9,]*")


class SettingsError(Exception):
    """A variable is missing or bad; the message names it and says what to set."""


@dataclass(frozen=True)
class StripeSettings:
    """How to ask Stripe's API."""

    api_key: str = field(repr=False)
    base: str | None = None
    """Stands in for https://api.stripe.com, for tests."""

    @property
    def livemode(self) -> bool | None:
        """The mode in the key's name (``sk_live_…``, ``rk_test_…``), ``None`` where it names none."""
        return _mode_of(self.api_key)


@dataclass(frozen=True)
class Settings:
    """What the worker needs in order to verify, interpret and record deliveries."""

    database_url: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    scope: EventScope
    stripe: StripeSettings | None = None
    metrics_folder: str | None = None
    """Where the processes of one gunicorn write their metrics."""
    metrics_token: str | None = field(default=None, repr=False)
    """What ``GET /metrics`` asks for, ``None`` for nothing."""
    is_traced: bool = False
    """Whether spans are to be sent to OpenTelemetry, if its packages are there."""


@dataclass(frozen=True)
class ServerSettings:
    """What gunicorn needs."""

    port: int
    workers: int
    metrics_parent: str | None
    """Where a folder is made for metrics, ``None`` for where temporary files go."""
    logs_json: bool


@dataclass(frozen=True)
class DevSettings:
    """What ``webhook dev`` takes from the environment; it makes what is empty."""

    database_url: str = field(repr=False)
    migration_database_url: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    livemode: bool


def read_settings(environ: Environment = os.environ) -> Settings:
    """Return the worker's settings, or raise :class:`SettingsError`."""
    return Settings(
        database_url=read_database_url(environ),
        webhook_secrets=read_webhook_secrets(environ),
        scope=read_event_scope(environ),
        stripe=read_stripe_settings(environ),
        metrics_folder=environ.get(_METRICS_FOLDER),
        metrics_token=read_metrics_token(environ),
        is_traced=_is_traced(environ),
    )


def read_event_scope(environ: Environment = os.environ) -> EventScope:
    """Return whose events count (``STRIPE_LIVEMODE``, ``STRIPE_ACCOUNT``)."""
    return EventScope(livemode=_livemode(environ), accounts=frozenset(_words(environ, "STRIPE_ACCOUNT")))


def read_stripe_settings(environ: Environment = os.environ) -> StripeSettings | None:
    """Return how to ask Stripe's API (``STRIPE_API_KEY``, ``STRIPE_API_BASE``), ``None`` without a key."""
    key = environ.get("STRIPE_API_KEY", "").strip()
    if not key:
        return None
    if not key.startswith(("sk_", "rk_")) or not key.isascii():
        raise SettingsError("STRIPE_API_KEY is not a secret or restricted key: it starts with sk_ or rk_")
    base = environ.get("STRIPE_API_BASE", "").strip().rstrip("/") or None
    if base and not base.startswith(("https://", "http://")):
        raise SettingsError("STRIPE_API_BASE is not a URL: it starts with https://")
    return StripeSettings(key, base)


def read_reader_settings(environ: Environment = os.environ) -> StripeSettings:
    """Return how to read Stripe's objects: a key is required, of the mode that ``STRIPE_LIVEMODE`` says."""
    settings = read_stripe_settings(environ)
    if settings is None:
        raise SettingsError("STRIPE_API_KEY is not set: a restricted read-only key is enough, rk_…")
    if settings.livemode not in (None, read_event_scope(environ).livemode):
        raise SettingsError("STRIPE_API_KEY is for the other mode than STRIPE_LIVEMODE says: set one of them right")
    return settings


def read_webhook_secrets(environ: Environment = os.environ) -> tuple[str, ...]:
    """Return the endpoint's signing secrets (``STRIPE_WEBHOOK_SECRET``), one or several."""
    _required(environ, "STRIPE_WEBHOOK_SECRET", "the endpoint's signing secret, whsec_…")
    secrets = _words(environ, "STRIPE_WEBHOOK_SECRET")
    if not secrets or not all(secret.startswith("whsec_") and secret.isascii() for secret in secrets):
        raise SettingsError("STRIPE_WEBHOOK_SECRET is not a signing secret: each one starts with whsec_")
    return secrets


def read_operator_key(given: str | None, environ: Environment = os.environ) -> StripeSettings:
    """Return how to ask Stripe's API with the key that an operator has ``given``, else with ``STRIPE_API_KEY``."""
    settings = read_stripe_settings({**environ, "STRIPE_API_KEY": given} if given else environ)
    if settings is None:
        raise SettingsError("STRIPE_API_KEY is not set: set it, or give --api-key")
    return settings


def read_server_settings(environ: Environment = os.environ) -> ServerSettings:
    """Return where to listen, how many processes to run, and how they tell what they do."""
    log_format = environ.get("LOG_FORMAT", "").strip().lower()
    if log_format not in ("", "json", "text"):
        raise SettingsError("LOG_FORMAT is neither json nor text")
    return ServerSettings(
        port=_integer(environ, "PORT", 8000, low=0, high=65535),
        workers=_integer(environ, "WEB_CONCURRENCY", 2, low=1, high=512),
        metrics_parent=environ.get(_METRICS_FOLDER),
        logs_json=log_format == "json" or (not log_format and not sys.stderr.isatty()),
    )


def read_metrics_token(environ: Environment = os.environ) -> str | None:
    """Return what ``GET /metrics`` asks for (``METRICS_TOKEN``), ``None`` for nothing."""
    token = environ.get("METRICS_TOKEN", "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise SettingsError("METRICS_TOKEN is not one word of ASCII characters")
    return token or None


def set_metrics_folder(folder: str) -> None:
    """Name the folder to the library that writes there, which reads it from the environment."""
    os.environ[_METRICS_FOLDER] = folder


def _is_traced(environ: Environment) -> bool:
    """Whether the variables of OpenTelemetry say where traces go."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return any(is_set(name, environ) for name in names) and not is_off


def read_database_url(environ: Environment = os.environ) -> str:
    """Return ``DATABASE_URL``, the worker's database."""
    return _postgres_url(environ, "DATABASE_URL")


def is_set(name: str, environ: Environment = os.environ) -> bool:
    """Whether the variable has a value."""
    return bool(environ.get(name, "").strip())


def has_database_url(environ: Environment = os.environ) -> bool:
    """Whether ``DATABASE_URL`` is set: without it ``webhook dev`` starts a Postgres of its own."""
    return is_set("DATABASE_URL", environ)


def read_migration_database_url(environ: Environment = os.environ) -> str:
    """Return ``MIGRATION_DATABASE_URL``, else ``DATABASE_URL``; never a transaction pooler's."""
    name = "MIGRATION_DATABASE_URL" if is_set("MIGRATION_DATABASE_URL", environ) else "DATABASE_URL"
    url = _postgres_url(environ, name)
    # Supabase's transaction pooler: https://supabase.com/docs/guides/database/connecting-to-postgres
    if conninfo_to_dict(url).get("port") == "6543":
        raise SettingsError(
            f"{name} goes through a transaction pooler (port 6543), which migrations cannot use: "
            "set MIGRATION_DATABASE_URL to the direct or session pooler connection (port 5432)"
        )
    return url


def read_dev_settings(environ: Environment = os.environ) -> DevSettings:
    """Return the settings of ``webhook dev``; all of them have a default, and test mode is it."""
    has_database = has_database_url(environ)
    has_secret = is_set("STRIPE_WEBHOOK_SECRET", environ)
    return DevSettings(
        database_url=read_database_url(environ) if has_database else "",
        migration_database_url=read_migration_database_url(environ) if has_database else "",
        webhook_secrets=read_webhook_secrets(environ) if has_secret else (),
        livemode=bool(_told_livemode(environ)),
    )


def child_environment(
    changes: Mapping[str, str], *, without: tuple[str, ...] = (), environ: Environment = os.environ
) -> dict[str, str]:
    """Return the environment for a program that this one starts.

    It lacks the variables whose names start with one of ``without``, then has ``changes``.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(without)}
    return kept | dict(changes)


def _postgres_url(environ: Environment, name: str) -> str:
    url = _required(environ, name, "postgresql://user:password@host:5432/database")
    if not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"{name} is not a Postgres URL: it starts with postgresql://")
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        parts = {"host": "@"}
    # A password with an @ or a / of its own ends up in these, and from there in messages.
    places = [str(parts.get(part, "")) for part in ("host", "dbname")]
    if any("@" in place for place in places) or not _PORTS.fullmatch(str(parts.get("port", ""))):
        raise SettingsError(f"{name} is not a valid URL: percent-encode special characters")
    return url


def _livemode(environ: Environment) -> bool:
    told = _told_livemode(environ)
    if told is None:
        raise SettingsError("STRIPE_LIVEMODE is not set: true for live payments, false for test mode")
    return told


def _told_livemode(environ: Environment) -> bool | None:
    """``STRIPE_LIVEMODE``, else the mode in the key's name (``sk_live_…``, ``rk_test_…``), else None."""
    told = environ.get("STRIPE_LIVEMODE", "").strip().lower()
    if told in {"true", "false"}:
        return told == "true"
    if told:
        raise SettingsError("STRIPE_LIVEMODE is neither true nor false")
    return _mode_of(environ.get("STRIPE_API_KEY", "").strip())


def _mode_of(key: str) -> bool | None:
    modes = {"live": True, "test": False}
    return next((live for mode, live in modes.items() if key.startswith((f"sk_{mode}_", f"rk_{mode}_"))), None)


def _required(environ: Environment, name: str, hint: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set: {hint}")
    return value


def _words(environ: Environment, name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in environ.get(name, "").split(",") if word.strip())


def _integer(environ: Environment, name: str, default: int, *, low: int, high: int) -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise SettingsError(f"{name} is not a whole number from {low} to {high}")
    return int(value)
