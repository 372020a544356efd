"""gunicorn's settings, as the Procfile's processes read them."""

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
    """gunicorn's settings in its own words."""
    printed = run(tuple(procfile()["web"].split()), {"GUNICORN_CMD_ARGS": "--print-config"}).stdout
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in printed.splitlines())}


def test_procfile_migrates_at_release_and_serves_with_gunicorn() -> None:
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
def test_gunicorn_started_by_the_procfile_takes_our_settings(settings: dict[str, str], name: str, value: str) -> None:
    assert settings[name] == value


@pytest.mark.parametrize("command", [GUNICORN, SERVE])
@pytest.mark.parametrize(
    "name",
    ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE", "PORT"],
)
def test_serving_with_a_bad_variable_ends_with_one_line_and_exit_code_2(command: tuple[str, ...], name: str) -> None:
    done = run(command, {name: "nonsense"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"webhook: {name} ")
    assert done.stderr.count("\n") == 1


def test_serve_with_a_bad_web_concurrency_ends_with_one_line_and_exit_code_2() -> None:
    """gunicorn reads this one itself, before any setting of ours, and fails in its own way."""
    done = run(SERVE, {"WEB_CONCURRENCY": "many"})
    assert (done.returncode, done.stderr.partition(" is ")[0]) == (2, "webhook: WEB_CONCURRENCY")
