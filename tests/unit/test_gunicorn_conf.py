"""gunicorn's settings when it is started by the Procfile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.project import PROJECT
from webhook.settings import child_environment

BIN = Path(sys.executable).parent
GOOD = {
    "DATABASE_URL": "postgresql://worker@127.0.0.1:1/postgres",
    "STRIPE_WEBHOOK_SECRET": "whsec_only_for_tests",
    "STRIPE_LIVEMODE": "false",
    "PORT": "4999",
    "WEB_CONCURRENCY": "3",
}
GUNICORN = ("gunicorn", "--config", "python:webhook.server.gunicorn_conf")
SERVE = ("webhook", "serve")


def run(command: tuple[str, ...], changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = child_environment({**GOOD, **changes}, without=("STRIPE_", "GUNICORN_", "MIGRATION_"))
    program, *arguments = command
    return subprocess.run(
        [BIN / program, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def procfile() -> dict[str, str]:
    lines = (PROJECT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """gunicorn's settings as it prints them, by name."""
    printed = run(tuple(procfile()["web"].split()), {"GUNICORN_CMD_ARGS": "--print-config"}).stdout
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in printed.splitlines())}


def test_procfile_runs_migrate_at_release_and_serve_as_web() -> None:
    assert procfile() == {"release": "webhook migrate", "web": " ".join(SERVE)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bind", "['0.0.0.0:4999']"),
        ("workers", "3"),
        ("worker_class", "webhook.server.worker.Worker"),
        ("preload_app", "True"),
        ("wsgi_app", "webhook.app:from_environment()"),
        ("control_socket_disable", "True"),
    ],
)
def test_procfile_web_process_uses_the_projects_settings(settings: dict[str, str], name: str, value: str) -> None:
    assert settings[name] == value


@pytest.mark.parametrize("command", [GUNICORN, SERVE])
@pytest.mark.parametrize(
    "name",
    ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE", "PORT"],
)
def test_start_with_an_invalid_variable_exits_with_2(command: tuple[str, ...], name: str) -> None:
    """Standard error is one line that names the variable."""
    done = run(command, {name: "nonsense"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"webhook: {name} ")
    assert done.stderr.count("\n") == 1


def test_serve_with_an_invalid_web_concurrency_exits_with_2() -> None:
    """gunicorn alone would parse this variable before any other setting and fail with its own error."""
    done = run(SERVE, {"WEB_CONCURRENCY": "many"})
    assert (done.returncode, done.stderr.partition(" is ")[0]) == (2, "webhook: WEB_CONCURRENCY")
