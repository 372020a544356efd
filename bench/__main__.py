"""The command line of `make bench` and `python -m bench`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bench.database import LostSaleError, running
from bench.load import LoadError
from bench.programs import MissingProgramError, install
from bench.report import replace_report, report
from bench.scenarios import SCENARIOS
from bench.scenarios.bench import Bench
from bench.scenarios.competitors import LETTERS


def _parts(_context: click.Context, _option: click.Parameter, value: str) -> tuple[frozenset[str], list[str]]:
    """Return the letters of the competitors and the names of the scenarios that ``--only`` selects."""
    words = {word.strip() for word in value.split(",")} - {""}
    if unknown := words - set(LETTERS) - set(SCENARIOS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join((*LETTERS, *SCENARIOS))}")
    letters = words & set(LETTERS)
    names = [name for name in SCENARIOS if not words or name in words or (name == "competitors" and letters)]
    return frozenset(letters or LETTERS), names


@click.command()
@click.option(
    "--only", "parts", default="", callback=_parts, help="Scenarios, or letters of competitors. Default: everything."
)
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 60), help="Length of a round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20), help="Rounds of each measurement.")
@click.option(
    "--write",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also write the report between the markers of this page.",
)
def main(parts: tuple[frozenset[str], list[str]], seconds: float, rounds: int, write: Path | None) -> None:
    """Measure the worker and print a report in Markdown.

    All scenarios together take about 20 minutes.

    \b
    Examples:
      python -m bench --only a,b --seconds 5
      python -m bench --only mixed,spending --rounds 1
      python -m bench --write docs/explanation/benchmarks.md
    """  # noqa: D301 - \b is for click: it keeps the lines of the examples apart
    letters, names = parts
    try:
        install()
        with running() as server:
            bench = Bench(server, seconds, rounds, letters, log=lambda line: click.echo(line, err=True))
            started = time.monotonic()
            sections = []
            for name in names:
                bench.log(f"{name}, after {time.monotonic() - started:.0f} s:")
                sections.append(SCENARIOS[name](bench))
    except (LostSaleError, LoadError, MissingProgramError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    text = report(sections, seconds, rounds)
    click.echo(text)
    if write:
        replace_report(write, text)


main(prog_name="python -m bench")
