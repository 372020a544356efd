"""`make bench`, `python -m bench`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bench.database import LostSaleError, running
from bench.lines import LINES
from bench.lines.bench import Bench
from bench.lines.rivals import LETTERS
from bench.load import LoadError
from bench.programs import MissingProgramError, install
from bench.report import renew, report


def _parts(_context: click.Context, _option: click.Parameter, value: str) -> tuple[frozenset[str], list[str]]:
    """Return the letters of the rivals and the names of the lines that ``--only`` means."""
    words = {word.strip() for word in value.split(",")} - {""}
    if unknown := words - set(LETTERS) - set(LINES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join((*LETTERS, *LINES))}")
    letters = words & set(LETTERS)
    names = [name for name in LINES if not words or name in words or (name == "rivals" and letters)]
    return frozenset(letters or LETTERS), names


@click.command()
@click.option("--only", "parts", default="", callback=_parts, help="Parts of it, as in a,b or steady,process.")
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 60), help="How long a round is.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 20), help="How many, in turn.")
@click.option(
    "--write",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that gets the report between its markers, as in docs/benchmarks.md.",
)
def main(parts: tuple[frozenset[str], list[str]], seconds: float, rounds: int, write: Path | None) -> None:
    """Measure the worker, and print what came of it as Markdown: about ten minutes for all of it."""
    letters, names = parts
    try:
        install()
        with running() as server:
            bench = Bench(server, seconds, rounds, letters, say=lambda line: click.echo(line, err=True))
            started = time.monotonic()
            sections = []
            for name in names:
                bench.say(f"{name}, after {time.monotonic() - started:.0f} s:")
                sections.append(LINES[name](bench))
    except (LostSaleError, LoadError, MissingProgramError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    text = report(sections, seconds, rounds)
    click.echo(text)
    if write:
        renew(write, text)


main(prog_name="python -m bench")
