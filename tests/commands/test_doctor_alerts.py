"""`webhook doctor --alerts` for cron: silent if all is well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.recorded import session_event
from support.shop import Shop
from support.stored_rows import set_parked_age

Alerts = Callable[..., tuple[int, str]]


@pytest.fixture
def alerts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Alerts:
    """The exit code and the output of the command without a key."""
    for name in ("MIGRATION_DATABASE_URL", "METRICS_TOKEN", "STRIPE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)

    def alerts(*arguments: str, **environment: str) -> tuple[int, str]:
        settings = {"STRIPE_WEBHOOK_SECRET": "whsec_1", "STRIPE_LIVEMODE": "false", "STRIPE_API_KEY": "", "PORT": "1"}
        result = shop.run("doctor", "--alerts", *arguments, **settings | environment)
        assert result.stderr == ""
        return result.exit_code, result.stdout

    return alerts


def park(shop: Shop, age: str) -> None:
    shop.deliver(session_event(event_id="evt_1", credits=None))
    set_parked_age(shop.admin, age)


def test_alerts_print_nothing_if_all_is_well(alerts: Alerts) -> None:
    assert alerts() == (0, "")


@pytest.mark.parametrize(
    ("age", "arguments", "is_reported"),
    [
        ("59 minutes", [], False),
        ("61 minutes", [], True),
        ("61 minutes", ["--older-than", "2h"], False),
        ("3 minutes", ["--older-than", "2m"], True),
    ],
)
def test_alerts_report_events_parked_for_too_long(
    shop: Shop, alerts: Alerts, age: str, arguments: list[str], *, is_reported: bool
) -> None:
    park(shop, age)
    code, text = alerts(*arguments)
    assert (code, bool(text)) == ((1, True) if is_reported else (0, False))
    if is_reported:
        assert text.startswith("parked events: 1, the oldest is evt_1 (missing_credits), since 20")


def test_alerts_report_a_failed_check(shop: Shop, alerts: Alerts) -> None:
    shop.admin.execute("alter table billing.sales disable row level security")
    assert alerts() == (1, "row-level security: alter table billing.sales enable row level security\n")


def test_alerts_without_a_database_exit_with_2(alerts: Alerts) -> None:
    code, text = alerts(DATABASE_URL="postgresql://webhook@127.0.0.1:1/none", OPERATOR_DATABASE_URL="")
    assert code == 2
    assert text.startswith("database: not reachable")


def test_alerts_without_stripe_exit_with_2(shop: Shop, alerts: Alerts) -> None:
    shop.stripe.error_status = lambda *_: 503
    code, text = alerts(STRIPE_API_KEY="rk_test_1")
    assert (code, text.startswith("Stripe: ")) == (2, True)


def test_alerts_with_a_rejected_key_exit_with_1(shop: Shop, alerts: Alerts) -> None:
    shop.stripe.error_status = lambda *_: 401
    assert alerts(STRIPE_API_KEY="rk_test_1") == (1, "Stripe: Stripe does not accept this key\n")


def test_alerts_without_a_database_url_exit_with_2(alerts: Alerts) -> None:
    code, text = alerts(DATABASE_URL="", OPERATOR_DATABASE_URL="")
    assert (code, "DATABASE_URL" in text) == (2, True)


def test_older_than_without_alerts_is_wrong_usage(shop: Shop) -> None:
    result = shop.run("doctor", "--older-than", "1h")
    assert (result.exit_code, "--older-than goes with --alerts" in result.stderr) == (2, True)
