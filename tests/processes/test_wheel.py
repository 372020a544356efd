"""The distributions, and the installed wheel in a virtual environment without the source."""

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
RELEASE = f"stripe_credits_webhook-{__version__}"


def run(*command: str | Path, cwd: Path = Path("/"), **changes: str) -> str:
    """Run a program, by default outside the repository, and return its output; fail if it fails."""
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
    return folder / f"{RELEASE}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the sdist, as installers do, so a file missing there is missing here."""
    run(PYTHON, "-m", "tarfile", "--extract", sdist, sdist.parent)
    build(sdist.parent / RELEASE, "wheel", sdist.parent)
    return sdist.parent / f"{RELEASE}-py3-none-any.whl"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with only the wheel and its locked dependencies.

    uv installs them from its cache, which `make setup` filled, so no network is needed.
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
    """An empty working directory and no PYTHONPATH: gunicorn would find the source in either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{RELEASE}.dist-info/METADATA").decode())


def files_below(folder: str) -> set[str]:
    files = (path for path in (PROJECT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PROJECT)) for path in files}


def test_wheel_holds_the_package_with_its_sql_and_nothing_else(wheel: Path) -> None:
    """The SQL is inside the package, where the installed worker looks for it."""
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files_below("webhook") | {f"webhook/{name}" for name in files_below("sql")}


def test_wheel_metadata_has_licence_types_and_command(wheel: Path) -> None:
    """Package indexes, type checkers and installers read them."""
    fields = metadata(wheel)
    with ZipFile(wheel) as archive:
        assert archive.read(f"{RELEASE}.dist-info/licenses/LICENSE") == (PROJECT / "LICENSE").read_bytes()
        assert "webhook = webhook.cli:main" in archive.read(f"{RELEASE}.dist-info/entry_points.txt").decode()
    assert (fields["License-Expression"], fields["Requires-Python"]) == ("MIT", ">=3.11")
    assert "Typing :: Typed" in fields.get_all("Classifier", [])


def test_package_index_shows_the_readme_without_pictures(wheel: Path) -> None:
    """It has no docs/images, so it would show broken ones."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = metadata(wheel).get_payload().splitlines()
    assert [line for line in shown if line] == [line for line in readme if line and not line.startswith("![")]


def test_sdist_holds_only_files_for_building_and_running(sdist: Path) -> None:
    """It has no tests, no CI configuration and no other files of the build machine."""
    with tarfile.open(sdist) as archive:
        held = {name.removeprefix(f"{RELEASE}/") for name in archive.getnames()}
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


def test_installed_wheel_runs_without_the_source(programs: Path) -> None:
    """So the other tests of this module test the wheel."""
    place = run(programs / "python", "-c", "import webhook; print(webhook.__file__)")
    assert Path(place).is_relative_to(programs.parent)
    assert run(programs / "webhook", "--version") == f"webhook, version {__version__}\n"


@pytest.mark.usefixtures("empty_template")
def test_installed_wheel_migrates_serves_and_audits(server: Server, programs: Path, outside: Path) -> None:
    """It runs the README's commands on a plain Postgres, outside the repository."""
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
        verdicts = {line.split()[0] for line in run(webhook, "doctor", **settings).splitlines()}
        assert verdicts == {"ok", "skipped"}
        assert run(webhook, "audit", **settings) == ""
