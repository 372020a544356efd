"""What a reconciliation tells its operator while it runs, and at its end: text, or one JSON document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click

from webhook.commands.output import aligned
from webhook.reconcile.objects import TITLES
from webhook.reconcile.progress import Progress
from webhook.reconcile.sources import Page, Source

NOTHING_MISSING, MISSING, INCOMPLETE = 0, 1, 2
"""Exit codes: all was there; something was missing, and is recorded unless it was a dry run; not all could be seen."""
_COLUMNS = ("seen", "missing", "credits", "parked", "failed")
_TIME = "%Y-%m-%d %H:%M:%S %Z"
_INTERRUPTED = InterruptedError("interrupted")


@dataclass(frozen=True)
class Item:
    """An object that was missing, is newly parked, or could not be recorded (``failed``)."""

    what: str
    kind: str
    id: str
    payment_id: str | None
    credits: int = 0
    reason: str | None = None


class Report:
    """Items are printed as they come, so that memory stays flat however many there are; the rest is counts."""

    def __init__(self, since: datetime, until: datetime, *, dry_run: bool, as_json: bool) -> None:
        """Nothing is printed yet."""
        self._about: dict[str, Any] = {"since": since.isoformat(), "until": until.isoformat(), "dry_run": dry_run}
        self._about["gap"] = None
        self._json = JSONItems() if as_json else None
        self._objects: Counter[str] = Counter()
        self._items: Counter[tuple[str, str]] = Counter()
        self._credits: Counter[str] = Counter()
        self._reached: dict[str, int | None] = {}
        self._ended: dict[str, Exception | None] = {}
        self._progress = Progress()
        self.waiting = 0
        """Objects that were parked before."""
        self.left_alone = 0
        """Paid sales of before the window that the ledger does not know."""
        self._requests = 0
        self._trouble: BaseException | None = None

    def warn_of_gap(self, covered_until: datetime, since: datetime) -> None:
        """Tell of a time that no run has looked at: with the same --since each night, nobody would notice."""
        begin, end = (f"{moment.astimezone(UTC):%Y-%m-%dT%H:%MZ}" for moment in (covered_until, since))
        self._about["gap"] = {"since": covered_until.isoformat(), "until": since.isoformat()}
        text = f"no finished run has looked at the time from {begin} to {end}: run it without --since for that"
        click.echo(f"webhook: {text}", err=True)

    def begin(self, sources: Sequence[Source]) -> None:
        """Tell the places that will be looked at."""
        self._reached = dict.fromkeys([source.title for source in sources])
        self._progress.begin(sources)

    def read(self, page: Page) -> None:
        """Count a page."""
        self._objects.update(found.kind for found in page.found)
        self._reached[page.source] = page.reached
        self._progress.read(page)

    def found(self, item: Item) -> None:
        """Print an item."""
        self._items[item.kind, item.what] += 1
        self._credits[item.kind] += item.credits
        if self._json:
            self._json.add(item)
        else:
            self._progress.print(_line(item))

    def end(self, source: str, trouble: Exception | None) -> None:
        """Tell that a place has been seen to its end, or how far."""
        self._ended[source] = trouble
        self._progress.end(source)

    @property
    def is_complete(self) -> bool:
        """Whether all places were seen to their end, and everything in them could be recorded."""
        return bool(self._reached) and not (self._trouble or self._troubles() or self._count("failed"))

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if not self.is_complete:
            return INCOMPLETE
        return MISSING if self._count("missing") + self._count("parked") else NOTHING_MISSING

    def finish(self, requests: int, trouble: BaseException | None = None) -> None:
        """Print the summary, after so many requests; ``trouble`` is what ended the run before its end.

        Where that was the output, nothing more is raised: what can be written still is.
        """
        self._requests, self._trouble = requests, trouble
        with suppress(OSError) if trouble else nullcontext():
            self._progress.close()
            for line in self._stops():
                click.echo(f"webhook: {line}", err=True)
        with suppress(OSError) if trouble else nullcontext():
            self._print_summary()

    def _print_summary(self) -> None:
        if self._json:
            self._json.end(self._summary())
            return
        self._print_table()
        for line in self._conclusions():
            click.echo(line)

    def _troubles(self) -> dict[str, Exception]:
        """Return the places that were not seen to their end, and why."""
        ended = {source: self._ended.get(source, _INTERRUPTED) for source in self._reached}
        return {source: trouble for source, trouble in ended.items() if trouble}

    def _stops(self) -> list[str]:
        """Return where the run stopped, and why."""
        lines = [str(self._trouble)] if self._trouble else []
        for source, trouble in self._troubles().items():
            reached = self._reached[source]
            seen = f"seen back to {datetime.fromtimestamp(reached, UTC):{_TIME}}" if reached else "not seen"
            lines.append(f"{source}: {seen}; {trouble}")
        if not self.is_complete:
            lines.append("not finished: run it again with the same --since; what is recorded already costs little")
        return lines

    def _count(self, what: str) -> int:
        return sum(count for (_, each), count in self._items.items() if each == what)

    def _summary(self) -> dict[str, Any]:
        whats = ("missing", "parked", "failed")
        kinds = {
            kind: {"seen": self._objects[kind], "credits": self._credits[kind]}
            | {what: self._items[kind, what] for what in whats}
            for kind in TITLES
        }
        return self._about | {
            "kinds": kinds,
            "counts": {what: self._count(what) for what in whats} | {"credits": self._credits.total()},
            "parked_before": self.waiting,
            "left_alone": self.left_alone,
            "requests": self._requests,
            "complete": self.is_complete,
            "not_finished": self._stops(),
        }

    def _print_table(self) -> None:
        rows = [["", *_COLUMNS]]
        for kind, counts in self._summary()["kinds"].items():
            signs = {"credits": "+" if counts["credits"] else ""}
            counted = (f"{counts[column]:{signs.get(column, '')},}" for column in _COLUMNS)
            rows.append([TITLES[kind], *counted])
        for line in aligned(rows, numbers=True):
            click.echo(line)

    def _conclusions(self) -> list[str]:
        missing, parked = self._count("missing"), self._count("parked")
        lines = []
        if missing:
            done = "would be recorded (dry run)" if self._about["dry_run"] else "now recorded"
            lines.append(f"{missing:,} missing, {done}: {self._credits.total():+,} credits.")
        if parked or self.waiting:
            lines.append(f"{parked + self.waiting:,} cannot be settled, {parked:,} newly found: see webhook parked.")
        if self.left_alone:
            lines.append(
                f"{self.left_alone:,} paid before the window, unknown and left alone: an earlier --since grants them."
            )
        if self.exit_code == NOTHING_MISSING:
            lines.append("Nothing is missing.")
        return [*lines, f"{self._requests:,} requests to Stripe."]


class JSONItems:
    """One JSON document, {"items": [item, …], …}, written while the items come."""

    def __init__(self) -> None:
        """Write its beginning."""
        self._separator = ""
        click.echo('{"items": [', nl=False)

    def add(self, item: Item) -> None:
        """Write one more item."""
        click.echo(f"{self._separator}\n{json.dumps(asdict(item))}", nl=False)
        self._separator = ","

    def end(self, summary: dict[str, Any]) -> None:
        """Write the rest."""
        click.echo("],\n" + json.dumps(summary, indent=2)[1:].lstrip())


def _line(item: Item) -> str:
    """Return an item as one line, its fields separated by tabs: what, kind, id, credits or reason, payment."""
    outcome = item.reason or f"{item.credits:+}"
    return "\t".join([item.what, item.kind, item.id, outcome, item.payment_id or ""]).rstrip()
