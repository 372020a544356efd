"""The report of a reconciliation: a line for each item, then a table and conclusions, or JSON Lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click

from webhook.output import aligned
from webhook.reconcile.pages import Page, Source
from webhook.reconcile.progress import Progress
from webhook.stripe_api.kinds import TITLES

NOTHING_MISSING, MISSING, INCOMPLETE = 0, 1, 2
"""Exit codes. ``MISSING``: it is recorded now, unless this was a dry run. ``INCOMPLETE``: not everything was read."""
_STATUSES = ("missing", "parked", "failed")
_COLUMNS = ("read", "missing", "credits", "parked", "failed")
_TIME = "%Y-%m-%d %H:%M:%S %Z"
_INTERRUPTED = InterruptedError("interrupted")


@dataclass(frozen=True)
class Item:
    """An object that was missing, was parked now, or could not be recorded (``failed``)."""

    status: str
    kind: str
    id: str
    payment_id: str | None
    credits: int = 0
    """Credits granted, or taken back (below 0)."""
    reason: str | None = None

    def __str__(self) -> str:
        """Return one line, separated by tabs: status, kind, id, credits or reason, payment."""
        outcome = self.reason or f"{self.credits:+}"
        return "\t".join([self.status, self.kind, self.id, outcome, self.payment_id or ""]).rstrip()


class Report:
    """Prints items as they come and keeps only counts, so that memory stays flat however many there are."""

    def __init__(self, run: dict[str, Any], *, as_json: bool) -> None:
        """``run`` describes the run in the summary; ``dry_run`` is one of its fields."""
        self._run = run
        self._as_json = as_json
        self._read: Counter[str] = Counter()
        self._items: Counter[tuple[str, str]] = Counter()
        self._credits: Counter[str] = Counter()
        self._reached: dict[str, int | None] = {}
        self._ended: dict[str, Exception | None] = {}
        self._progress = Progress()
        self.parked_before = 0
        """Objects that were parked before this run."""
        self.skipped = 0
        """Sales paid before the window that the ledger does not know."""
        self.ignored_invoices: Counter[str] = Counter()
        """Invoices paid in the window that grant nothing, by reason."""
        self._requests = 0
        self._error: BaseException | None = None

    def begin(self, sources: Sequence[Source]) -> None:
        """Note the sources that will be read."""
        self._reached = dict.fromkeys([source.title for source in sources])
        self._progress.begin(sources)

    def read(self, page: Page) -> None:
        """Count the objects of a page."""
        self._read.update(each.kind for each in page.objects)
        self._reached[page.source] = page.reached
        self._progress.read(page)

    def add(self, item: Item) -> None:
        """Print an item and count it."""
        self._items[item.kind, item.status] += 1
        self._credits[item.kind] += item.credits
        self._progress.print(json.dumps({"type": "item"} | asdict(item)) if self._as_json else str(item))

    def stays(self, item_id: str, state: str) -> None:
        """Count an object that cannot be settled and is not parked now: see :meth:`Ledger.parked_already`."""
        del item_id
        self.parked_before += state == "waiting"

    def end(self, source: str, error: Exception | None) -> None:
        """Note that a source was read to its end, or failed with an error."""
        self._ended[source] = error
        self._progress.end(source)

    @property
    def is_complete(self) -> bool:
        """Whether all sources were read to their end, and everything in them could be recorded."""
        return bool(self._reached) and not (self._error or self._source_errors() or self._count("failed"))

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if not self.is_complete:
            return INCOMPLETE
        return MISSING if self._count("missing") + self._count("parked") else NOTHING_MISSING

    def finish(self, requests: int, error: BaseException | None = None) -> None:
        """Print the summary; ``requests`` is the number made, ``error`` the reason why the run ended early.

        After an error, output that cannot be written is dropped: it may have been the reason.
        """
        self._requests, self._error = requests, error
        with suppress(OSError) if error else nullcontext():
            self._progress.close()
            for line in self._not_finished():
                click.echo(f"webhook: {line}", err=True)
        with suppress(OSError) if error else nullcontext():
            self._print_summary()

    def _print_summary(self) -> None:
        if self._as_json:
            click.echo(json.dumps(self._summary()))
            return
        for line in [*self._table(), *self._conclusions()]:
            click.echo(line)

    def _source_errors(self) -> dict[str, Exception]:
        """Return the error of each source that was not read to its end."""
        ended = {source: self._ended.get(source, _INTERRUPTED) for source in self._reached}
        return {source: error for source, error in ended.items() if error}

    def _not_finished(self) -> list[str]:
        """Return why the run is incomplete, a line for each reason."""
        lines = [str(self._error)] if self._error else []
        for source, error in self._source_errors().items():
            reached = self._reached[source]
            state = f"read back to {datetime.fromtimestamp(reached, UTC):{_TIME}}" if reached else "not read"
            lines.append(f"{source}: {state}; {error}")
        return lines

    def _count(self, status: str) -> int:
        return sum(count for (_, each), count in self._items.items() if each == status)

    def _counts_by_kind(self) -> dict[str, dict[str, int]]:
        return {
            kind: {"read": self._read[kind], "credits": self._credits[kind]}
            | {status: self._items[kind, status] for status in _STATUSES}
            for kind in TITLES
        }

    def _summary(self) -> dict[str, Any]:
        return (
            {"type": "summary"}
            | self._run
            | {
                "kinds": self._counts_by_kind(),
                "counts": {status: self._count(status) for status in _STATUSES} | {"credits": self._credits.total()},
                "parked_before": self.parked_before,
                "skipped": self.skipped,
                "ignored_invoices": dict(sorted(self.ignored_invoices.items())),
                "requests": self._requests,
                "complete": self.is_complete,
                "not_finished": self._not_finished(),
            }
        )

    def _table(self) -> list[str]:
        rows = [["", *_COLUMNS]]
        for kind, counts in self._counts_by_kind().items():
            signs = {"credits": "+" if counts["credits"] else ""}
            counted = (f"{counts[column]:{signs.get(column, '')},}" for column in _COLUMNS)
            rows.append([TITLES[kind], *counted])
        return aligned(rows, numbers=True)

    def _conclusions(self) -> list[str]:
        missing, parked = self._count("missing"), self._count("parked")
        lines = []
        if missing:
            done = "would be recorded (dry run)" if self._run["dry_run"] else "now recorded"
            lines.append(f"{missing:,} missing, {done}: {self._credits.total():+,} credits.")
        if parked or self.parked_before:
            lines.append(
                f"{parked + self.parked_before:,} cannot be settled, {parked:,} of them new: see webhook parked."
            )
        if self.skipped:
            lines.append(
                f"{self.skipped:,} skipped: paid before the window and not in the ledger. "
                "An earlier --since grants them."
            )
        if self.ignored_invoices:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.ignored_invoices.items()))
            lines.append(f"{self.ignored_invoices.total():,} invoices skipped, because they grant nothing: {reasons}.")
        if self.exit_code == NOTHING_MISSING:
            lines.append("Nothing is missing.")
        return [*lines, f"{self._requests:,} requests to Stripe."]


class WindowReport(Report):
    """The report of a run over a window of time."""

    def __init__(self, since: datetime, until: datetime, *, dry_run: bool, as_json: bool) -> None:
        window = {"since": since.isoformat(), "until": until.isoformat()}
        super().__init__(window | {"dry_run": dry_run, "gap": None}, as_json=as_json)
        self._since = since

    def warn_of_gap(self, covered_until: datetime, since: datetime) -> None:
        """Warn of a time that no completed run covers: a nightly run with the same --since would hide it."""
        begin, end = (f"{moment.astimezone(UTC):%Y-%m-%dT%H:%MZ}" for moment in (covered_until, since))
        self._run["gap"] = {"since": covered_until.isoformat(), "until": since.isoformat()}
        click.echo(
            f"webhook: no completed run covers the time from {begin} to {end}: run it without --since to include it",
            err=True,
        )

    def _not_finished(self) -> list[str]:
        lines = super()._not_finished()
        if not self.is_complete:
            since = f"{self._since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"  # a relative time would begin later
            lines.append(f"not finished: run it again with --since {since}; objects already recorded take little time")
        return lines
