"""The form of a log line, as JSON and as text."""

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
    """The logging of this process is as it was afterwards."""
    root, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers, logging.root.level = root, level


def written(*, as_json: bool) -> list[str]:
    """Lines of the worker and of gunicorn, and one with an exception, as they are written."""
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
def test_log_as_json_is_an_object_a_line() -> None:
    """A traceback too."""
    delivery, killed, failed = (json.loads(line) for line in written(as_json=True))
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
def test_log_as_text_reads_in_a_line() -> None:
    """Names and values in the order they are told; no colours where there is no terminal."""
    lines = written(as_json=False)
    assert "delivery" in lines[0]
    assert lines[0].endswith("event_id=evt_1 outcome=recorded")
    assert "\x1b" not in "".join(lines)
