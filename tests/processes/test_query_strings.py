"""The query string of a request, which may hold an email address, stays out of gunicorn's log."""

from __future__ import annotations

import subprocess
from http.client import HTTPConnection
from pathlib import Path

from support.ports import free_port
from support.waiting import eventually
from webhook.server.command import gunicorn
from webhook.settings import child_environment

BROKEN = "def application(environ, start_response):\n    raise ZeroDivisionError\n"
SETTINGS = {
    "DATABASE_URL": "postgresql://worker@127.0.0.1:1/postgres",
    "STRIPE_WEBHOOK_SECRET": "whsec_only_for_tests",
    "STRIPE_LIVEMODE": "false",
    "GUNICORN_CMD_ARGS": "--access-logfile -",
}


def answer(port: int, path: str) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_query_string_is_logged_nowhere(tmp_path: Path) -> None:
    """Neither with an error nor with an access log that GUNICORN_CMD_ARGS turns on."""
    (tmp_path / "broken.py").write_text(BROKEN)
    port = free_port()
    command = gunicorn("--bind", f"127.0.0.1:{port}", "--workers", "1", "broken:application")
    options = {"cwd": tmp_path, "env": child_environment(SETTINGS), "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stderr=subprocess.STDOUT, text=True, **options) as server:
        eventually(lambda: answer(port, "/console?q=ann@example.com") == 500)
        server.terminate()
        log, _ = server.communicate(timeout=60)
    assert "Error handling request GET /console" in log
    assert "ann@example.com" not in log
