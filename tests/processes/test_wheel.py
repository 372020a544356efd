"""The distributions, and what the wheel does in an environment of its own, where no source is on the path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import psycopg
import pytest

from support.databases import WORKER, Server, login
from support.ledger_queries import new_user
from support.project import PROJECT
from support.worker import SECRET, sale, working
from webhook import __version__
from webhook.ledger.schema import expected_version
from webhook.settings import child_environment

PYTHON = Path(sys.executable)
NAMED = f"stripe_credits_webhook-{__version__}"


def run(*command: str | Path, cwd: Path = Path("/"), **changes: str) -> str:
    """What a program prints that has to succeed, by default far from the repository."""
    environment = child_environment(changes, without=("PYTHON", "VIRTUAL_ENV", "STRIPE_", "DATABASE_", "MIGRATION_"))
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def build(project: Path, kind: str, target: Path) -> None:
    run(PYTHON, "-m", "hatchling", "build", "--target", kind, "--directory", target, cwd=project)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    build(PROJECT, "sdist", folder)
    return folder / f"{NAMED}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the sdist, as installers do: what that lacks is missing here."""
    run(PYTHON, "-m", "tarfile", "--extract", sdist, sdist.parent)
    build(sdist.parent / NAMED, "wheel", sdist.parent)
    return sdist.parent / f"{NAMED}-py3-none-any.whl"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and the locked versions of what it needs, and nothing else.

    uv takes them from its cache, which `make setup` filled, so no network is needed.
    """
    environment = tmp_path_factory.mktemp("clean") / "venv"
    uv = shutil.which("uv", path=f"{os.environ['PATH']}:{PYTHON.parent}")
    assert uv, "uv is missing: run make setup"
    sync = ("sync", "--frozen", "--no-dev", "--no-install-project", "--project", PROJECT, "--python", PYTHON)
    run(uv, *sync, UV_PROJECT_ENVIRONMENT=str(environment))
    run(uv, "pip", "install", "--no-deps", "--python", environment, wheel)
    run(uv, "pip", "check", "--python", environment)
    return environment / "bin"


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder and no PYTHONPATH: gunicorn would find the source in either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{NAMED}.dist-info/METADATA").decode())


def files_below(folder: str) -> set[str]:
    files = (path for path in (PROJECT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PROJECT)) for path in files}


def test_wheel_holds_the_package_with_its_sql_and_nothing_else(wheel: Path) -> None:
    """The schema is inside the package, where an installed one looks for it."""
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files_below("webhook") | {f"webhook/{name}" for name in files_below("sql")}


def test_wheel_says_its_licence_its_types_and_its_command(wheel: Path) -> None:
    """What indexes, type checkers and installers look for."""
    told = metadata(wheel)
    with ZipFile(wheel) as archive:
        assert archive.read(f"{NAMED}.dist-info/licenses/LICENSE") == (PROJECT / "LICENSE").read_bytes()
        assert "webhook = webhook.cli:main" in archive.read(f"{NAMED}.dist-info/entry_points.txt").decode()
    assert (told["License-Expression"], told["Requires-Python"]) == ("MIT", ">=3.11")
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert told.get_payload() == (PROJECT / "README.md").read_text(encoding="utf-8")


def test_sdist_holds_what_building_and_running_needs_and_no_more(sdist: Path) -> None:
    """No tests, no continuous integration, nothing that the machine it was built on left behind."""
    with tarfile.open(sdist) as archive:
        held = {name.removeprefix(f"{NAMED}/") for name in archive.getnames()}
    files = {
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "PKG-INFO",
        "Procfile",
        "README.md",
        "SECURITY.md",
    }
    assert held == files | {"pyproject.toml"} | files_below("webhook") | files_below("sql") | files_below("docs")


def test_installed_wheel_is_found_without_the_source(programs: Path) -> None:
    """What the other tests here try is the wheel."""
    place = run(programs / "python", "-c", "import webhook; print(webhook.__file__)")
    assert Path(place).is_relative_to(programs.parent)
    assert run(programs / "webhook", "--version") == f"webhook, version {__version__}\n"


@pytest.mark.usefixtures("empty_template")
def test_installed_wheel_migrates_serves_and_audits(server: Server, programs: Path, outside: Path) -> None:
    """On a plain Postgres, by the commands that the README names, far from the repository."""
    webhook = programs / "webhook"
    with server.new_database("template1") as database:
        migrated = run(webhook, "migrate", "--plain-postgres", DATABASE_URL=database.superuser_url)
        assert migrated.endswith(f"Schema {expected_version()} is up to date\n")
        url = login(database.superuser_url, WORKER)
        with psycopg.connect(database.superuser_url, autocommit=True) as connection:
            event = sale(new_user(connection), "wheel")
        (outside / "webhook.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
        with working(url, outside, command=(str(webhook), "serve")) as worker:
            answers = [worker.deliver(event), worker.deliver(event)]
        assert [(answer.status, answer.outcome) for answer in answers] == [(200, "recorded"), (200, "duplicate")]
        settings = {"DATABASE_URL": url, "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_LIVEMODE": "false"}
        assert "wrong" not in run(webhook, "doctor", **settings)
        assert run(webhook, "audit", **settings) == ""
