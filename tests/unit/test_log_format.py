"""The format of a log line, as JSON and as text."""

from __future__ import annotations

import io
import json
import logging
import logging.config
from collections.abc import Iterator

import pytest
import structlog

from webhook.observability import logs


@pytest.fixture
def configured() -> Iterator[None]:
    """Restore the logging configuration of this process afterwards."""
    root, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers, logging.root.level = root, level


def log_lines(*, as_json: bool) -> list[str]:
    """Return log lines of the worker and of gunicorn, one of them with an exception."""
    stream = io.StringIO()
    logging.config.dictConfig(logs.set_up(as_json=as_json, stream=stream))
    structlog.get_logger("webhook").info("delivery", event_id="evt_1", outcome="recorded")
    logging.getLogger("gunicorn.error").warning("Worker %s was sent %s", 7, "SIGKILL")
    try:
        int("no number")
    except ValueError:
        logging.getLogger("gunicorn.error").exception("Exception in worker process")
    return stream.getvalue().splitlines()


@pytest.mark.usefixtures("configured")
def test_json_log_has_one_object_per_line() -> None:
    """A traceback is part of its object."""
    delivery, killed, failed = (json.loads(line) for line in log_lines(as_json=True))
    assert delivery.pop("time").endswith("Z")
    assert delivery == {
        "message": "delivery",
        "level": "info",
        "event_id": "evt_1",
        "outcome": "recorded",
    }
    assert (killed["message"], killed["level"]) == ("Worker 7 was sent SIGKILL", "warning")
    assert killed["logger"] == "gunicorn.error"
    assert failed["exception"].startswith("Traceback")


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("value", ["\ud800", 2**64, {1, 2}, float("nan")], ids=repr)
def test_json_log_of_an_odd_value_is_still_a_line(value: object) -> None:
    """A line that cannot be written must not fail its delivery."""
    stream = io.StringIO()
    logs.set_up(as_json=True, stream=stream)
    structlog.get_logger("webhook").info("delivery", cause=value)
    assert json.loads(stream.getvalue())["message"] == "delivery"


@pytest.mark.usefixtures("configured")
def test_json_log_of_an_exception_has_its_traceback() -> None:
    stream = io.StringIO()
    logs.set_up(as_json=True, stream=stream)
    structlog.get_logger("webhook").error("failed", exc_info=ValueError("no number"))
    assert "ValueError: no number" in json.loads(stream.getvalue())["exception"]


@pytest.mark.usefixtures("configured")
def test_text_log_has_one_line_per_event() -> None:
    """Fields keep their order, and there are no colours without a terminal."""
    lines = log_lines(as_json=False)
    assert "delivery" in lines[0]
    assert lines[0].endswith("event_id=evt_1 outcome=recorded")
    assert "\x1b" not in "".join(lines)
