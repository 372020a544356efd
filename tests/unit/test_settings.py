"""Settings: a missing or invalid variable is named in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from webhook.settings import (
    SettingsError,
    child_environment,
    read_database_url,
    read_dev_settings,
    read_lookup_settings,
    read_migration_database_url,
    read_operator_database_url,
    read_operator_key,
    read_reader_settings,
    read_server_settings,
    read_settings,
)

URL = "postgresql://worker:secret@db.example.com:5432/postgres"
GOOD = {"DATABASE_URL": URL, "STRIPE_WEBHOOK_SECRET": "whsec_one", "STRIPE_LIVEMODE": "false"}


def test_settings_are_stripped_of_whitespace() -> None:
    settings = read_settings({**GOOD, "DATABASE_URL": f" {URL}\n", "STRIPE_WEBHOOK_SECRET": "whsec_one , whsec_two\n"})
    assert settings.database_url == URL
    assert settings.webhook_secrets == ("whsec_one", "whsec_two")


def test_settings_repr_hides_secrets() -> None:
    assert "secret@" not in repr(read_settings(GOOD))
    assert "whsec_" not in repr(read_settings(GOOD))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", " "),
        ("DATABASE_URL", "mysql://db.example.com/credits"),
        ("DATABASE_URL", "postgresql://worker:50%zz@db.example.com/postgres"),
        ("DATABASE_URL", "postgresql://db.example.com/postgres?no_such_option=1"),
        ("DATABASE_URL", "postgresql://worker:pass@word@db.example.com/postgres"),
        ("DATABASE_URL", "postgresql://worker:pass/word@db.example.com/postgres"),
        ("DATABASE_URL", "postgresql://worker:12/word@db.example.com/postgres"),
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("STRIPE_WEBHOOK_SECRET", ","),
        ("STRIPE_WEBHOOK_SECRET", "sk_test_123"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_one,two"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_ünicode"),
        ("STRIPE_LIVEMODE", ""),
        ("STRIPE_LIVEMODE", "yes"),
        ("STRIPE_LIVEMODE", '"true"'),
        ("STRIPE_WEBHOOK_SECRET", "'whsec_one'"),
        ("METRICS_TOKEN", "two words"),
        ("METRICS_TOKEN", "tökén"),
    ],
)
def test_invalid_setting_raises_one_line_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({**GOOD, name: value})
    assert str(raised.value).startswith(f"{name} ")
    assert "\n" not in str(raised.value)


def test_invalid_database_url_error_hides_the_password() -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({**GOOD, "DATABASE_URL": "postgresql://worker:hunter2%zz@db.example.com/postgres"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "key", "livemode"),
    [
        ("true", "", True),
        ("FALSE", "", False),
        ("", "sk_live_123", True),
        ("", "rk_live_123", True),
        ("", "sk_test_123", False),
        ("", "rk_test_123", False),
    ],
)
def test_livemode_comes_from_its_variable_or_the_api_key(variable: str, key: str, livemode: bool) -> None:  # noqa: FBT001
    """The variable takes precedence."""
    settings = read_settings({**GOOD, "STRIPE_LIVEMODE": variable, "STRIPE_API_KEY": key})
    assert settings.scope.livemode is livemode


@pytest.mark.parametrize("read", [read_settings, read_reader_settings, read_lookup_settings])
@pytest.mark.parametrize(("livemode", "key"), [("true", "rk_test_1"), ("false", "sk_live_1")])
def test_key_of_the_other_mode_is_rejected(read: Callable[..., Any], livemode: str, key: str) -> None:
    """It would see none of the objects that the events name."""
    with pytest.raises(SettingsError, match=r"^STRIPE_API_KEY is for the other mode than STRIPE_LIVEMODE"):
        read({**GOOD, "STRIPE_LIVEMODE": livemode, "STRIPE_API_KEY": key})


def test_server_settings_have_defaults() -> None:
    settings = read_server_settings({})
    assert (settings.port, settings.workers) == (8000, 2)


@pytest.mark.parametrize(
    ("variable", "is_terminal", "is_json"),
    [("", True, False), ("", False, True), ("json", True, True), (" Text ", False, False)],
)
def test_log_format_by_default_depends_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    is_terminal: bool,  # noqa: FBT001
    is_json: bool,  # noqa: FBT001
) -> None:
    """The default is text on a terminal and JSON elsewhere."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    assert read_server_settings({"LOG_FORMAT": variable}).logs_json is is_json


@pytest.mark.parametrize(
    ("environ", "is_traced"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_tracing_is_enabled_by_an_exporter_endpoint(environ: dict[str, str], is_traced: bool) -> None:  # noqa: FBT001
    """No other variable enables it, and `OTEL_SDK_DISABLED` disables it."""
    assert read_settings(GOOD | environ).is_traced is is_traced


def test_settings_repr_hides_the_metrics_token() -> None:
    settings = read_settings({**GOOD, "METRICS_TOKEN": "very-secret"})
    assert settings.metrics_token == "very-secret"
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "x"), ("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "²"), ("LOG_FORMAT", "yaml")],
)
def test_invalid_server_setting_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        read_server_settings({name: value})


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"DATABASE_URL": URL}, URL),
        ({"DATABASE_URL": "postgresql://worker@pooler:6543/x", "MIGRATION_DATABASE_URL": URL}, URL),
        ({"DATABASE_URL": "postgresql://db1:5432,db2:5433/x"}, "postgresql://db1:5432,db2:5433/x"),
        ({"DATABASE_URL": "postgresql:///x?host=/run/db"}, "postgresql:///x?host=/run/db"),
    ],
)
def test_migration_url_is_its_variable_or_the_database_url(environ: dict[str, str], url: str) -> None:
    assert read_migration_database_url(environ) == url


def test_migration_url_of_a_transaction_pooler_is_rejected() -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL .*MIGRATION_DATABASE_URL"):
        read_migration_database_url({"DATABASE_URL": "postgresql://worker@pooler.example.com:6543/postgres"})


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"DATABASE_URL": URL}, URL),
        ({"OPERATOR_DATABASE_URL": URL}, URL),
        ({"DATABASE_URL": "postgresql://worker@host/x", "OPERATOR_DATABASE_URL": URL}, URL),
        ({"DATABASE_URL": URL, "OPERATOR_DATABASE_URL": " "}, URL),
    ],
)
def test_operator_url_falls_back_to_the_workers(environ: dict[str, str], url: str) -> None:
    assert read_operator_database_url(environ) == url


URL_READERS = {
    "DATABASE_URL": read_database_url,
    "MIGRATION_DATABASE_URL": read_migration_database_url,
    "OPERATOR_DATABASE_URL": read_operator_database_url,
}


@pytest.mark.parametrize("name", URL_READERS)
@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("pgbouncer=true", "has the parameter pgbouncer, which Postgres does not know: remove it"),
        ("sslmode=require&connection_limit=1", "has the parameter connection_limit, which"),
        ("schema=public", "has the parameter schema, which"),
        ("sslmode=no-verify", "has sslmode=no-verify, which Postgres does not know: use disable, allow, prefer, "),
        ("sslmode=REQUIRE", "has sslmode=REQUIRE, which"),
        ("sslmode=a%20b", "has sslmode=…, which"),
        ("sslnegotiation=fast", "has sslnegotiation=fast, which Postgres does not know: use postgres or direct"),
        ("channel_binding=yes", "has channel_binding=yes, which"),
        ("target_session_attrs=master", "has target_session_attrs=master, which"),
        ("connect_timeout=10s", "has a value of connect_timeout that is not a whole number"),
    ],
)
def test_database_url_with_an_unknown_parameter_names_it(name: str, query: str, cause: str) -> None:
    with pytest.raises(SettingsError) as raised:
        URL_READERS[name]({name: f"{URL}?{query}"})
    assert str(raised.value).startswith(f"{name} {cause}")


@pytest.mark.parametrize("name", URL_READERS)
@pytest.mark.parametrize(
    "query",
    ["sslmode=verify-full&sslrootcert=system", "sslmode=", "ssl=true", "connect_timeout=10", "options=-c%20a%3Db"],
)
def test_database_url_with_known_parameters_is_accepted(name: str, query: str) -> None:
    assert URL_READERS[name]({name: f"{URL}?{query}"}) == f"{URL}?{query}"


def test_database_url_with_a_placeholder_asks_for_the_password() -> None:
    """Supabase's Dashboard shows the URL like this."""
    url = "postgresql://postgres:[YOUR-PASSWORD]@db.abc.supabase.co:5432/postgres"
    with pytest.raises(SettingsError, match=r"^DATABASE_URL has no password yet: replace \[YOUR-PASSWORD\]$"):
        read_database_url({"DATABASE_URL": url})


@pytest.mark.parametrize("quote", ['"', "'"])
def test_setting_in_quotes_names_them(quote: str) -> None:
    """``docker run --env-file`` and some hosts keep the quotes of a file."""
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is in quotes"):
        read_database_url({"DATABASE_URL": f" {quote}{URL}{quote} "})


@pytest.mark.parametrize("value", [" /run/metrics\n", "/run/metrics"])
def test_metrics_directory_is_stripped_of_whitespace(value: str) -> None:
    environ = {**GOOD, "PROMETHEUS_MULTIPROC_DIR": value}
    assert read_server_settings(environ).metrics_parent == "/run/metrics"
    assert read_settings(environ).metrics_directory == "/run/metrics"


def test_every_setting_of_spaces_counts_as_unset() -> None:
    """The worker starts with its defaults."""
    names = ("STRIPE_API_KEY", "STRIPE_ACCOUNT", "STRIPE_API_BASE", "METRICS_TOKEN", "PROMETHEUS_MULTIPROC_DIR")
    spaces = dict.fromkeys((*names, "OTEL_EXPORTER_OTLP_ENDPOINT", "PORT", "WEB_CONCURRENCY", "LOG_FORMAT"), " ")
    assert read_settings(GOOD | spaces) == read_settings(GOOD)
    assert read_server_settings(spaces) == read_server_settings({})


def test_dev_settings_without_variables_mean_test_mode() -> None:
    settings = read_dev_settings({})
    assert (settings.database_url, settings.webhook_secrets, settings.livemode) == ("", (), False)


@pytest.mark.parametrize("name", ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE"])
def test_invalid_dev_setting_names_the_variable(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} "):
        read_dev_settings({name: "nonsense"})


def test_child_environment_has_changes_and_exclusions() -> None:
    environ: dict[str, Any] = {"PGHOST": "elsewhere", "PATH": "/bin", "LANG": "C"}
    assert child_environment({"LANG": "de"}, without=("PG",), environ=environ) == {"PATH": "/bin", "LANG": "de"}


def test_operator_key_option_overrides_the_variable() -> None:
    assert read_operator_key("rk_given", {"STRIPE_API_KEY": "rk_variable"}).api_key == "rk_given"
    assert read_operator_key(None, {"STRIPE_API_KEY": "rk_variable"}).api_key == "rk_variable"


@pytest.mark.parametrize("given", [None, "whsec_1"])
def test_missing_or_malformed_operator_key_is_rejected(given: str | None) -> None:
    """The error does not contain the key."""
    with pytest.raises(SettingsError, match="STRIPE_API_KEY is not") as raised:
        read_operator_key(given, {})
    assert "whsec_1" not in str(raised.value)


@pytest.mark.parametrize(("key", "livemode"), [("sk_live_1", True), ("rk_test_1", False), ("sk_1", None)])
def test_stripe_settings_have_the_mode_of_their_key(key: str, livemode: bool | None) -> None:  # noqa: FBT001 - expected
    assert read_operator_key(key, {}).livemode is livemode
