"""What commands print: aligned tables, and a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import click
from tqdm import tqdm

from webhook.settings import StripeSettings

Item = TypeVar("Item")


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Return one line per row, with columns of equal width. ``numbers`` aligns all but the first column right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<", *(">" if numbers else "<" for _ in widths[1:])]
    shape = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    return [shape.format(*row).rstrip() for row in rows]


def progress_bar(
    items: Iterable[Item], *, total: int | None = None, form: str | None = None, leave: bool = True
) -> tqdm[Item]:
    """Return a bar that counts ``items`` as they are iterated. Standard error shows it if that is a terminal.

    ``total`` is the number of items, by default ``len(items)``. ``form`` is tqdm's ``bar_format``. With ``leave``, the
    bar stays on the screen. Use :func:`print_above_bar` meanwhile: other output would break the bar.
    """
    return tqdm(items, total=total, bar_format=form, leave=leave, disable=not sys.stderr.isatty())


def silence_notice(settings: StripeSettings) -> Callable[[], None]:
    """Return the function that reports on standard error that Stripe cannot be reached."""
    address = settings.base or "https://api.stripe.com"

    def report() -> None:
        with tqdm.external_write_mode(file=sys.stderr), suppress(OSError):
            click.echo(f"webhook: Stripe cannot be reached at {address}: still trying", err=True)

    return report


def print_above_bar(line: str) -> None:
    """Print a line on standard output, above any progress bar."""
    with tqdm.external_write_mode(file=sys.stdout):
        click.echo(line)
