"""The settings, from environment variables. Each command reads only those that it uses."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from webhook.errors import ExpectedError
from webhook.events.event import EventScope

Environment = Mapping[str, str]
MAX_CREDITS = 10_000
"""The default of ``CONSOLE_MAX_CREDITS``."""
_METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_CONSOLE_TOKEN = re.compile(r"(?P<name>[a-z0-9._-]{1,32}):(?P<role>viewer|operator):(?P<digest>[0-9a-f]{64})")
_NO_TOKEN = hashlib.sha256().hexdigest()
_UNKNOWN_PARAMETER = re.compile(r'invalid URI query parameter: "([\w.-]{1,40})"', re.ASCII)
_WORD = re.compile(r"[\w.-]{1,40}", re.ASCII)
_PARAMETER_VALUES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
"""Parameters of a database URL with their values: https://www.postgresql.org/docs/current/libpq-connect.html."""
_NUMBERS = ("connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle", "keepalives_interval")


class SettingsError(ExpectedError):
    """A variable is missing or bad. The message is one line that names the variable and the cause."""


@dataclass(frozen=True)
class StripeSettings:
    """The access to Stripe's API."""

    api_key: str = field(repr=False)
    base: str | None = None
    """The URL to use instead of https://api.stripe.com, for tests."""

    @property
    def livemode(self) -> bool | None:
        """The mode in the key's prefix (``sk_live_…``, ``rk_test_…``), ``None`` for a prefix without a mode."""
        return _mode_of(self.api_key)


@dataclass(frozen=True)
class ConsoleToken:
    """An entry of ``CONSOLE_TOKENS``: the token of this hash logs in."""

    name: str
    role: str
    """``viewer`` or ``operator``."""
    digest: str = field(repr=False)
    """The SHA-256 of the token, in hexadecimal."""


@dataclass(frozen=True)
class ConsoleSettings:
    """The settings of the console. It uses connections and a Stripe client of its own."""

    database_url: str = field(repr=False)
    operator_database_url: str = field(repr=False)
    """The database for changes: ``OPERATOR_DATABASE_URL``, else ``DATABASE_URL``."""
    scope: EventScope
    stripe: StripeSettings | None = None
    max_credits: int = MAX_CREDITS
    """The most credits that one action may give or take."""
    tokens: tuple[ConsoleToken, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The settings to verify, interpret and record deliveries."""

    database_url: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    scope: EventScope
    stripe: StripeSettings | None = None
    metrics_directory: str | None = None
    """Where the processes of one gunicorn write their metrics."""
    metrics_token: str | None = field(default=None, repr=False)
    """The bearer token that ``GET /metrics`` requires, ``None`` if it requires none."""
    is_traced: bool = False
    """Whether spans are exported, if the extra ``otel`` is installed."""
    console: ConsoleSettings | SettingsError | None = None
    """The console's settings, or why it is closed; ``None`` without ``CONSOLE_TOKENS``."""


@dataclass(frozen=True)
class ServerSettings:
    """The settings of gunicorn."""

    port: int
    workers: int
    logs_json: bool
    metrics_parent: str | None
    """Where to create the directory for metrics, ``None`` for the directory of temporary files."""


@dataclass(frozen=True)
class DevSettings:
    """The settings of ``webhook dev``, which replaces empty ones with defaults."""

    database_url: str = field(repr=False)
    migration_database_url: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    livemode: bool
    port_option: str
    """How to choose the port: make takes no options."""


def read_settings(environ: Environment = os.environ) -> Settings:
    """Return the worker's settings."""
    return Settings(
        database_url=read_database_url(environ),
        webhook_secrets=read_webhook_secrets(environ),
        scope=read_event_scope(environ),
        stripe=read_lookup_settings(environ),
        metrics_directory=_read(environ, _METRICS_DIRECTORY) or None,
        metrics_token=read_metrics_token(environ),
        is_traced=_is_traced(environ),
        console=_read_open_console(environ),
    )


def read_console_settings(environ: Environment = os.environ) -> ConsoleSettings:
    """Return the settings of the console; without ``CONSOLE_TOKENS`` it has no tokens."""
    return ConsoleSettings(
        database_url=read_database_url(environ),
        operator_database_url=read_operator_database_url(environ),
        scope=read_event_scope(environ),
        stripe=read_lookup_settings(environ),
        max_credits=read_max_credits(environ),
        tokens=read_console_tokens(environ),
    )


def read_console_tokens(environ: Environment = os.environ) -> tuple[ConsoleToken, ...]:
    """Return the entries of ``CONSOLE_TOKENS``, none if it is not set. The message of an error quotes no entry."""
    if not is_set("CONSOLE_TOKENS", environ):
        return ()
    entries = [_CONSOLE_TOKEN.fullmatch(entry.strip()) for entry in _read(environ, "CONSOLE_TOKENS").split(",")]
    if bad := [place for place, entry in enumerate(entries, 1) if entry is None]:
        raise SettingsError(f"CONSOLE_TOKENS: entry {bad[0]} is not name:role:sha256: see webhook console token")
    if any(entry["digest"] == _NO_TOKEN for entry in entries if entry):
        raise SettingsError("CONSOLE_TOKENS has the hash of an empty token: see webhook console token")
    tokens = tuple(ConsoleToken(**entry.groupdict()) for entry in entries if entry)
    if len({token.digest for token in tokens}) < len(tokens):
        raise SettingsError("CONSOLE_TOKENS has the same token twice: give each entry its own")
    return tokens


def read_max_credits(environ: Environment = os.environ) -> int:
    """Return the most credits that one action in the console may give or take (``CONSOLE_MAX_CREDITS``)."""
    return _read_integer(environ, "CONSOLE_MAX_CREDITS", MAX_CREDITS, low=1, high=1_000_000_000)


def read_event_scope(environ: Environment = os.environ) -> EventScope:
    """Return the mode and accounts whose events count (``STRIPE_LIVEMODE``, ``STRIPE_ACCOUNT``)."""
    livemode = _read_livemode(environ)
    if livemode is None:
        raise SettingsError("STRIPE_LIVEMODE is not set: true for live payments, false for test mode")
    return EventScope(livemode, accounts=frozenset(_read_list(environ, "STRIPE_ACCOUNT")))


def read_stripe_settings(environ: Environment = os.environ) -> StripeSettings | None:
    """Return the access to Stripe's API (``STRIPE_API_KEY``, ``STRIPE_API_BASE``), ``None`` without a key."""
    key = _read(environ, "STRIPE_API_KEY")
    if not key:
        return None
    if not key.startswith(("sk_", "rk_")) or not key.isascii():
        raise SettingsError("STRIPE_API_KEY is not a secret or restricted key: it must start with sk_ or rk_")
    base = _read(environ, "STRIPE_API_BASE").rstrip("/") or None
    if base and not base.startswith(("https://", "http://")):
        raise SettingsError("STRIPE_API_BASE is not a URL: it must start with https://")
    return StripeSettings(key, base)


def read_lookup_settings(environ: Environment = os.environ) -> StripeSettings | None:
    """Return the access to Stripe's API with a key of the mode in ``STRIPE_LIVEMODE``, ``None`` without a key.

    A key of one mode sees no object of the other.
    """
    settings = read_stripe_settings(environ)
    if settings and settings.livemode not in (None, read_event_scope(environ).livemode):
        raise SettingsError("STRIPE_API_KEY is for the other mode than STRIPE_LIVEMODE: correct one of them")
    return settings


def read_reader_settings(environ: Environment = os.environ) -> StripeSettings:
    """Return the access to Stripe's API for a command that needs it, else like :func:`read_lookup_settings`."""
    settings = read_lookup_settings(environ)
    if settings is None:
        raise SettingsError("STRIPE_API_KEY is not set: a restricted read-only key is enough, rk_…")
    return settings


def read_operator_key(given: str | None, environ: Environment = os.environ) -> StripeSettings:
    """Return the access to Stripe's API with the key ``given`` by an operator, else with ``STRIPE_API_KEY``."""
    if settings := read_stripe_settings({**environ, "STRIPE_API_KEY": given} if given else environ):
        return settings
    raise SettingsError("STRIPE_API_KEY is not set: set it, or give --api-key")


def read_webhook_secrets(environ: Environment = os.environ) -> tuple[str, ...]:
    """Return the endpoint's signing secrets (``STRIPE_WEBHOOK_SECRET``), at least one."""
    _require(environ, "STRIPE_WEBHOOK_SECRET", "the endpoint's signing secret, whsec_…")
    secrets = _read_list(environ, "STRIPE_WEBHOOK_SECRET")
    if not secrets or not all(secret.startswith("whsec_") and secret.isascii() for secret in secrets):
        raise SettingsError("STRIPE_WEBHOOK_SECRET is not a signing secret: each one must start with whsec_")
    return secrets


def read_server_settings(environ: Environment = os.environ) -> ServerSettings:
    """Return gunicorn's settings (``PORT``, ``WEB_CONCURRENCY``, ``LOG_FORMAT``, ``PROMETHEUS_MULTIPROC_DIR``)."""
    return ServerSettings(
        port=_read_integer(environ, "PORT", 8000, low=0, high=65535),
        workers=_read_integer(environ, "WEB_CONCURRENCY", 2, low=1, high=512),
        metrics_parent=_read(environ, _METRICS_DIRECTORY) or None,
        logs_json=read_logs_json(environ),
    )


def read_logs_json(environ: Environment = os.environ) -> bool:
    """Return whether log lines are JSON (``LOG_FORMAT``): by default, if standard error is not a terminal."""
    log_format = _read(environ, "LOG_FORMAT").lower()
    if log_format not in ("", "json", "text"):
        raise SettingsError("LOG_FORMAT is neither json nor text")
    return log_format == "json" or (not log_format and not sys.stderr.isatty())


def read_metrics_token(environ: Environment = os.environ) -> str | None:
    """Return the bearer token that ``GET /metrics`` requires (``METRICS_TOKEN``), ``None`` if it requires none."""
    token = _read(environ, "METRICS_TOKEN")
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise SettingsError("METRICS_TOKEN is not a single word of printable ASCII characters")
    return token or None


def read_database_url(environ: Environment = os.environ) -> str:
    """Return ``DATABASE_URL``, the worker's database."""
    return _read_postgres_url(environ, "DATABASE_URL")


def read_operator_database_url(environ: Environment = os.environ) -> str:
    """Return ``OPERATOR_DATABASE_URL``, else ``DATABASE_URL``: the database for commands that act as an operator."""
    name = "OPERATOR_DATABASE_URL" if is_set("OPERATOR_DATABASE_URL", environ) else "DATABASE_URL"
    return _read_postgres_url(environ, name)


def read_migration_database_url(environ: Environment = os.environ) -> str:
    """Return ``MIGRATION_DATABASE_URL``, else ``DATABASE_URL``. A transaction pooler is an error."""
    name = "MIGRATION_DATABASE_URL" if is_set("MIGRATION_DATABASE_URL", environ) else "DATABASE_URL"
    url = _read_postgres_url(environ, name)
    # Supabase's transaction pooler: https://supabase.com/docs/guides/database/connecting-to-postgres
    if conninfo_to_dict(url).get("port") == "6543":
        raise SettingsError(
            f"{name} is a transaction pooler (port 6543), which cannot run migrations: "
            "set MIGRATION_DATABASE_URL to the direct or session pooler connection (port 5432)"
        )
    return url


def read_dev_settings(environ: Environment = os.environ) -> DevSettings:
    """Return the settings of ``webhook dev``. Each one is optional; the default mode is test mode."""
    has_database = is_set("DATABASE_URL", environ)
    return DevSettings(
        database_url=read_database_url(environ) if has_database else "",
        migration_database_url=read_migration_database_url(environ) if has_database else "",
        webhook_secrets=read_webhook_secrets(environ) if is_set("STRIPE_WEBHOOK_SECRET", environ) else (),
        livemode=bool(_read_livemode(environ)),
        # make sets MAKELEVEL for its recipes: https://www.gnu.org/software/make/manual/html_node/Recursion.html.
        port_option="make dev PORT=…" if is_set("MAKELEVEL", environ) else "--port",
    )


def read_listen_key(environ: Environment = os.environ) -> str:
    """Return the test-mode ``STRIPE_API_KEY`` for the Stripe CLI, "" without a key. A live key or mode is an error."""
    if _read(environ, "STRIPE_LIVEMODE").lower() == "true":
        raise SettingsError("STRIPE_LIVEMODE is true: webhook dev --listen forwards test-mode events only")
    settings = read_stripe_settings(environ)
    if settings and settings.livemode is not False:
        raise SettingsError(
            "STRIPE_API_KEY is not a test-mode key: webhook dev --listen takes sk_test_… or rk_test_…, never a live key"
        )
    return settings.api_key if settings else ""


def is_set(name: str, environ: Environment = os.environ) -> bool:
    """Return whether the variable has a value."""
    return bool(environ.get(name, "").strip())


def child_environment(
    changes: Mapping[str, str], *, without: tuple[str, ...] = (), environ: Environment = os.environ
) -> dict[str, str]:
    """Return the environment for a child process: ours, less names that start with ``without``, plus ``changes``."""
    return {name: value for name, value in environ.items() if not name.startswith(without)} | dict(changes)


def _read_open_console(environ: Environment) -> ConsoleSettings | SettingsError | None:
    """Return a bad setting of the console as a value: deliveries go on without it."""
    try:
        settings = read_console_settings(environ) if is_set("CONSOLE_TOKENS", environ) else None
    except SettingsError as error:
        return error
    return settings


def _is_traced(environ: Environment) -> bool:
    """Return whether OpenTelemetry's variables name an endpoint for traces."""
    is_off = _read(environ, "OTEL_SDK_DISABLED").lower() == "true"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return not is_off and any(is_set(name, environ) for name in endpoints)


def _read_livemode(environ: Environment) -> bool | None:
    """Return the mode in ``STRIPE_LIVEMODE``, else that of the key's prefix, else ``None``."""
    mode = _read(environ, "STRIPE_LIVEMODE").lower()
    if mode not in ("", "true", "false"):
        raise SettingsError("STRIPE_LIVEMODE is neither true nor false")
    return mode == "true" if mode else _mode_of(_read(environ, "STRIPE_API_KEY"))


def _mode_of(key: str) -> bool | None:
    mode = re.match(r"[sr]k_(live|test)_", key)
    return mode[1] == "live" if mode else None


def _read_postgres_url(environ: Environment, name: str) -> str:
    url = _require(environ, name, "postgresql://user:password@host:5432/database")
    if not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"{name} is not a Postgres URL: it must start with postgresql://")
    if "[YOUR-PASSWORD]" in url:
        raise SettingsError(f"{name} has no password yet: replace [YOUR-PASSWORD]")
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError as error:
        parts = {"host": "@"}
        _reject_unknown_parameter(name, str(error))
    # Part of a password with an unescaped @ or / becomes the host or the database. Messages would show it.
    shown = [str(parts.get(part, "")) for part in ("host", "dbname")]
    if any("@" in part for part in shown) or not re.fullmatch(r"[0-9,]*", str(parts.get("port", ""))):
        raise SettingsError(f"{name} is not a valid URL: percent-encode special characters")
    _check_parameters(name, parts)
    return url


def _reject_unknown_parameter(name: str, message: str) -> None:
    """Name the parameter that libpq's ``message`` is about. ORMs add some to their URLs, such as ``pgbouncer=true``."""
    if unknown := _UNKNOWN_PARAMETER.search(message):
        raise SettingsError(f"{name} has the parameter {unknown[1]}, which Postgres does not know: remove it")


def _check_parameters(name: str, parts: Mapping[str, Any]) -> None:
    """Raise :class:`SettingsError` for a value that libpq would reject only when it connects."""
    for parameter, allowed in _PARAMETER_VALUES.items():
        if parts.get(parameter) and parts[parameter] not in allowed:
            shown = parts[parameter] if _WORD.fullmatch(str(parts[parameter])) else "…"
            raise SettingsError(f"{name} has {parameter}={shown}, which Postgres does not know: use {_either(allowed)}")
    for parameter in _NUMBERS:
        if not re.fullmatch(r"[0-9]{0,9}", str(parts.get(parameter, ""))):
            raise SettingsError(f"{name} has a value of {parameter} that is not a whole number")


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _read_integer(environ: Environment, name: str, default: int, *, low: int, high: int) -> int:
    value = _read(environ, name) or str(default)
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise SettingsError(f"{name} is not a whole number from {low} to {high}")
    return int(value)


def _read_list(environ: Environment, name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _read(environ, name).split(",") if part.strip())


def _require(environ: Environment, name: str, hint: str) -> str:
    if value := _read(environ, name):
        return value
    raise SettingsError(f"{name} is not set: {hint}")


def _read(environ: Environment, name: str) -> str:
    value = environ.get(name, "").strip()
    if value[:1] in {'"', "'"} and value[:1] == value[-1:]:
        raise SettingsError(f"{name} is in quotes, which are part of the value here: remove them")
    return value
