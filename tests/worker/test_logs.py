"""Log lines: what each delivery leaves, in which form, and what never gets there."""

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


def lines_of(app: Flask, event: Any, secret: str = SECRET) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        post(app.test_client(), event, secret=secret)
    return lines


def without(name: str, line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != name}


def test_log_of_a_delivery_is_one_line_with_what_became_of_it(app: Flask) -> None:
    """Its id, type, outcome and duration_ms."""
    event = session_event()
    [line] = lines_of(app, event)
    assert line["duration_ms"] > 0
    assert without("duration_ms", line) == {
        "event": "delivery",
        "log_level": "info",
        "event_id": event["id"],
        "type": "checkout.session.completed",
        "outcome": "recorded",
    }


def test_log_of_a_parked_delivery_is_a_warning_with_the_reason(app: Flask) -> None:
    """Somebody who paid may be waiting."""
    [line] = lines_of(app, session_event(user_id="nobody"))
    assert (line["log_level"], line["outcome"], line["reason"]) == ("warning", "parked", "unknown_user")


def test_log_of_an_unavailable_delivery_is_an_error_with_the_cause(app: Flask, admin: psycopg.Connection) -> None:
    """The cause is the database's code, for its words may hold values of a row."""
    admin.execute("revoke insert on public.transactions from service_role")
    [line] = lines_of(app, session_event())
    assert (line["log_level"], line["outcome"], line["reason"]) == ("error", "unavailable", "database")
    assert line["cause"] == "SQLSTATE 42501 InsufficientPrivilege"


def test_log_of_a_refused_delivery_is_a_warning_with_the_cause(app: Flask) -> None:
    """Whose signature it is nobody knows, so nothing in it is told."""
    [line] = lines_of(app, session_event(), secret="whsec_another")
    assert (line["log_level"], line["outcome"], line["reason"]) == ("warning", "rejected", "wrong_signature")
    assert "event_id" not in line


def test_log_of_not_being_ready_is_an_error_with_the_cause() -> None:
    """GET /readyz is no delivery."""
    app = create_app(Settings("postgresql://nobody@127.0.0.1:1/none", (SECRET,), EventScope(livemode=False)))
    with capture_logs() as lines:
        assert app.test_client().get("/readyz").status_code == 503
    [line] = lines
    assert (line["event"], line["log_level"], line["reason"]) == ("unavailable", "error", "database")
    assert line["cause"].startswith("no connection: ")


def _everywhere(value: Any) -> Any:
    """Return the JSON with every text of it, but the event's id and type, made private."""
    if isinstance(value, dict):
        return {key: _everywhere(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_everywhere(each) for each in value]
    return PRIVATE if isinstance(value, str) else value


def _feeds() -> dict[str, Any]:
    event = session_event()
    whole = _everywhere(event)
    known = {"id": "evt_1", "type": event["type"]}
    metadata = event["data"]["object"]["metadata"] | {"user_id": PRIVATE, "credits": PRIVATE}
    session = event["data"]["object"] | {"metadata": metadata, "client_reference_id": PRIVATE}
    return {
        "every text": whole | known,
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


@pytest.mark.parametrize("place", _feeds())
@pytest.mark.parametrize("secret", [SECRET, "whsec_another"])
def test_log_of_a_delivery_tells_nothing_private_wherever_it_stands(app: Flask, place: str, secret: str) -> None:
    """Neither what the payload holds, nor a secret."""
    lines = lines_of(app, _feeds()[place], secret)
    assert len(lines) == 1
    assert [each for each in (PRIVATE, "whsec_", USER_ID) if each in str(lines)] == []


@pytest.mark.parametrize("raised", [RuntimeError(PRIVATE), LedgerUnavailableError("SQLSTATE 23514"), KeyError(PRIVATE)])
def test_log_of_an_error_tells_nothing_private(app: Flask, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    """A bug is told by its kind and place, an outage by its code; both with what they were caused by left out."""

    def fail(*_: object) -> None:
        raise raised from ValueError(PRIVATE)

    monkeypatch.setattr("webhook.app.settle", fail)
    [line] = lines_of(app, session_event())
    assert (line["log_level"], line["outcome"]) == ("error", "unavailable")
    assert PRIVATE not in str(line)


def test_log_of_an_error_outside_of_a_delivery_is_one_line_with_its_place() -> None:
    """Flask's own handler would write its words, and answer 500."""
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


def test_log_of_an_error_of_the_database_tells_nothing_of_its_words(app: Flask, admin: psycopg.Connection) -> None:
    """They may quote a row."""
    admin.execute(failing_with(PRIVATE))
    [line] = lines_of(app, session_event())
    assert line["cause"] == "SQLSTATE P0001 RaiseException"
    assert PRIVATE not in str(line)


def test_log_of_a_database_out_of_reach_hides_its_password() -> None:
    """What libpq says of a connection names server and user alone."""
    app = create_app(Settings(f"postgresql://worker:{PASSWORD}@127.0.0.1:1/x", (SECRET,), EventScope(livemode=False)))
    [line] = lines_of(app, session_event())
    assert line["outcome"] == "unavailable"
    assert PASSWORD not in str(line)
