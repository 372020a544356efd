"""How far a reconciliation has come: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from tqdm import tqdm

from webhook.reconcile.sources import Page, Source

_SECONDS_BETWEEN_LINES = 10


class Progress:
    """Lists go back in time, so the time that they have covered tells how much is left; nothing tells their length."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._sources: dict[str, Source] = {}
        self._shares: dict[str, float] = {}
        self._objects = 0
        self._began = self._told = time.monotonic()
        self._bar = tqdm(
            total=100, bar_format="{percentage:3.0f}%|{bar:30}| {desc}", leave=False, disable=not sys.stderr.isatty()
        )

    def begin(self, sources: Sequence[Source]) -> None:
        """Show the first state."""
        self._sources = {source.title: source for source in sources}
        self._shares = dict.fromkeys(self._sources, 0.0)
        self._show()

    def read(self, page: Page) -> None:
        """Show that a page was read."""
        self._objects += page.objects
        if page.reached is not None:
            source = self._sources[page.source]
            self._shares[page.source] = (source.until - page.reached) / max(source.until - source.since, 1)
        self._show()

    def end(self, title: str) -> None:
        """Show that a source has no more."""
        self._shares[title] = 1.0
        self._show()

    def print(self, line: str) -> None:
        """Print a line of the result, on standard output, above the bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            click.echo(line)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _show(self) -> None:
        seconds = max(time.monotonic() - self._began, 0.001)
        percent = 100 * sum(self._shares.values()) / max(len(self._shares), 1)
        state = f"{self._objects:,} objects, {self._objects / seconds:,.0f} a second"
        self._bar.n = percent
        self._bar.set_description_str(state)
        if self._bar.disable and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            click.echo(f"{percent:.0f} %: {state}", err=True)
