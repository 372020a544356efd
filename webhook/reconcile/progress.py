"""The progress of a run on standard error: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Never

import click
from tqdm import tqdm

from webhook.output import print_above_bar, progress_bar
from webhook.reconcile.pages import Page, Source

_SECONDS_BETWEEN_LINES = 10


class Progress:
    """The progress of a run: the share of the window that the lists have covered. Their length is unknown."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._shares: dict[str, float] = {}
        self._objects = 0
        self._began = self._printed = time.monotonic()
        self._bar: tqdm[Never] = progress_bar((), total=100, form="{percentage:3.0f}%|{bar:30}| {desc}", leave=False)

    def begin(self, sources: Sequence[Source]) -> None:
        """Show that nothing of these sources has been read."""
        self._sources = {source.title: source for source in sources}
        self._shares = dict.fromkeys(self._sources, 0.0)
        self._show()

    def read(self, page: Page) -> None:
        """Show that a page was read."""
        self._objects += page.size
        if page.reached is not None:
            source = self._sources[page.source]
            self._shares[page.source] = (source.until - page.reached) / max(source.until - source.since, 1)
        self._show()

    def end(self, title: str) -> None:
        """Show that a source was read to its end."""
        self._shares[title] = 1.0
        self._show()

    def print(self, line: str) -> None:
        """Print a line of the result on standard output, above the bar."""
        print_above_bar(line)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _show(self) -> None:
        seconds = max(time.monotonic() - self._began, 0.001)
        percent = 100 * sum(self._shares.values()) / max(len(self._shares), 1)
        state = f"{self._objects:,} objects, {self._objects / seconds:,.0f} a second"
        self._bar.n = percent
        self._bar.set_description_str(state)
        if self._bar.disable and time.monotonic() - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            click.echo(f"{percent:.0f} %: {state}", err=True)
