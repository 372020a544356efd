"""Log lines: their fields for each outcome, and the data that they never contain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from structlog.testing import capture_logs

from support.delivery import SECRET, post
from support.ledger_queries import failing_with
from support.recorded import USER_ID, session_event
from webhook.app import create_app
from webhook.events.event import EventScope
from webhook.ledger.errors import LedgerUnavailableError
from webhook.settings import Settings

PASSWORD = "pass-in-the-url"
PRIVATE = "private@example.com"


@pytest.fixture
def app(make_app: Callable[..., Flask], admin: psycopg.Connection) -> Flask:
    admin.execute("insert into auth.users (id, email) values (%s, %s)", [USER_ID, PRIVATE])
    return make_app()


def log_lines(app: Flask, event: Any, secret: str = SECRET) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        post(app.test_client(), event, secret=secret)
    return lines


def without(name: str, line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != name}


def test_delivery_is_logged_as_one_line_with_its_outcome(app: Flask) -> None:
    event = session_event()
    [line] = log_lines(app, event)
    assert line["duration_ms"] > 0
    assert without("duration_ms", line) == {
        "event": "delivery",
        "log_level": "info",
        "event_id": event["id"],
        "type": "checkout.session.completed",
        "outcome": "recorded",
    }


def test_parked_delivery_is_logged_as_a_warning_with_its_reason(app: Flask) -> None:
    """A customer who paid may be waiting for credits."""
    [line] = log_lines(app, session_event(user_id="nobody"))
    assert (line["log_level"], line["outcome"], line["reason"]) == ("warning", "parked", "unknown_user")


def test_unavailable_delivery_is_logged_as_an_error(app: Flask, admin: psycopg.Connection) -> None:
    """The cause is the SQLSTATE, because the database's message may quote values of a row."""
    admin.execute("revoke insert on public.transactions from service_role")
    [line] = log_lines(app, session_event())
    assert (line["log_level"], line["outcome"], line["reason"]) == ("error", "unavailable", "database")
    assert line["cause"] == "SQLSTATE 42501 InsufficientPrivilege"


def test_rejected_delivery_is_logged_as_a_warning(app: Flask) -> None:
    """The line contains nothing from the body, because its sender is unknown."""
    [line] = log_lines(app, session_event(), secret="whsec_another")
    assert (line["log_level"], line["outcome"], line["reason"]) == ("warning", "rejected", "wrong_signature")
    assert "event_id" not in line


def test_failed_readiness_check_is_logged_as_an_error() -> None:
    """It is not logged as a delivery."""
    app = create_app(Settings("postgresql://nobody@127.0.0.1:1/none", (SECRET,), EventScope(livemode=False)))
    with capture_logs() as lines:
        assert app.test_client().get("/readyz").status_code == 503
    [line] = lines
    assert (line["event"], line["log_level"], line["reason"]) == ("unavailable", "error", "database")
    assert line["cause"].startswith("no connection: ")


def _with_private_strings(value: Any) -> Any:
    """Return the JSON with every string replaced by PRIVATE."""
    if isinstance(value, dict):
        return {key: _with_private_strings(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_private_strings(each) for each in value]
    return PRIVATE if isinstance(value, str) else value


def _events_with_private_data() -> dict[str, Any]:
    event = session_event()
    replaced = _with_private_strings(event)
    known = {"id": "evt_1", "type": event["type"]}
    metadata = event["data"]["object"]["metadata"] | {"user_id": PRIVATE, "credits": PRIVATE}
    session = event["data"]["object"] | {"metadata": metadata, "client_reference_id": PRIVATE}
    return {
        "every text": replaced | known,
        "metadata": event | known | {"data": {"object": session}},
        "type": event | {"type": PRIVATE},
        "no event": [PRIVATE],
        "no json": PRIVATE.encode(),
        "not utf-8": PRIVATE.encode() + b"\xff",
        "id with spaces": event | {"id": f"{PRIVATE} and more"},
        "account": event | {"account": PRIVATE},
        "livemode": event | {"livemode": PRIVATE},
        "reason of another kind": event | {"data": {"object": session | {"payment_intent": {"email": PRIVATE}}}},
    }


@pytest.mark.parametrize("case", _events_with_private_data())
@pytest.mark.parametrize("secret", [SECRET, "whsec_another"])
def test_delivery_log_contains_no_private_data(app: Flask, case: str, secret: str) -> None:
    """Neither payload data nor secrets are logged, in any field of the event."""
    lines = log_lines(app, _events_with_private_data()[case], secret)
    assert len(lines) == 1
    assert [each for each in (PRIVATE, "whsec_", USER_ID) if each in str(lines)] == []


@pytest.mark.parametrize("raised", [RuntimeError(PRIVATE), LedgerUnavailableError("SQLSTATE 23514"), KeyError(PRIVATE)])
def test_error_log_contains_no_private_data(app: Flask, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    """Messages of an exception and of its cause are not logged."""

    def fail(*_: object) -> None:
        raise raised from ValueError(PRIVATE)

    monkeypatch.setattr("webhook.app.settle", fail)
    [line] = log_lines(app, session_event())
    assert (line["log_level"], line["outcome"]) == ("error", "unavailable")
    assert PRIVATE not in str(line)


def test_error_outside_a_delivery_is_logged_with_its_location() -> None:
    """Flask's own handler would log the message and answer 500."""
    app = create_app(Settings("postgresql://nobody@127.0.0.1:1/none", (SECRET,), EventScope(livemode=False)))

    @app.before_request
    def fail() -> None:
        raise RuntimeError(PRIVATE)

    with capture_logs() as lines:
        assert app.test_client().get("/healthz").status_code == 503
    [line] = lines
    assert (line["event"], line["log_level"], line["reason"], line["cause"]) == (
        "unavailable",
        "error",
        "bug",
        "RuntimeError",
    )
    assert line["location"].startswith("fail:")
    assert PRIVATE not in str(line)


def test_database_error_is_logged_without_its_message(app: Flask, admin: psycopg.Connection) -> None:
    """The message may quote values of a row."""
    admin.execute(failing_with(PRIVATE))
    [line] = log_lines(app, session_event())
    assert line["cause"] == "SQLSTATE P0001 RaiseException"
    assert PRIVATE not in str(line)


def test_unreachable_database_is_logged_without_its_password() -> None:
    """libpq's connection errors name only the server and the user."""
    app = create_app(Settings(f"postgresql://worker:{PASSWORD}@127.0.0.1:1/x", (SECRET,), EventScope(livemode=False)))
    [line] = log_lines(app, session_event())
    assert line["outcome"] == "unavailable"
    assert PASSWORD not in str(line)
