"""The chart of the home page: credits sold above the line, spent and taken back below it. Geometry without HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from webhook.explain.overview import DailyCredits

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 720, 200, 12, 24, 64, 12
SIZE = {"width": WIDTH, "height": HEIGHT, "top": TOP, "bottom": BOTTOM, "left": LEFT}
"""The size of the drawing, and its margins, in units of its view box."""
_DAYS_BETWEEN_LABELS = 7
_LINE = 14


@dataclass(frozen=True)
class Bar:
    """A bar: the credits of one kind on one day."""

    kind: str
    """``sold``, ``spent`` or ``taken-back``."""
    x: float
    y: float
    width: float
    height: float
    day: date
    credits: int


@dataclass(frozen=True)
class Chart:
    """The bars, the line of zero credits, and the labels of the axes."""

    bars: tuple[Bar, ...]
    zero: float
    labels: tuple[tuple[float, date], ...]
    """Days and where they are."""
    heights: tuple[tuple[float, int], ...]
    """Credits and where they are; 0 is left out where there is no space."""


def draw(days: Sequence[DailyCredits]) -> Chart | None:
    """Return the chart; ``None`` if no credits moved."""
    above = max((each.sold for each in days), default=0)
    below = max((max(each.spent, 0) + max(each.taken_back, 0) for each in days), default=0)
    if not above + below:
        return None
    scale = (HEIGHT - TOP - BOTTOM) / (above + below)
    zero, step = TOP + above * scale, (WIDTH - LEFT - RIGHT) / len(days)
    bars = [bar for number, each in enumerate(days) for bar in _bars(each, LEFT + number * step, step, zero, scale)]
    labels = [
        (LEFT + (number + 0.5) * step, each.day)
        for number, each in enumerate(days)
        if (len(days) - 1 - number) % _DAYS_BETWEEN_LABELS == 0
    ]
    return Chart(tuple(bars), round(zero, 1), tuple(labels), _heights(above, below, zero))


def _heights(above: int, below: int, zero: float) -> tuple[tuple[float, int], ...]:
    ends = [*([(TOP, above)] if above else []), *([(HEIGHT - BOTTOM, -below)] if below else [])]
    has_space = all(abs(zero - y) >= _LINE for y, _ in ends)
    return tuple((round(y, 1), credits_) for y, credits_ in (*ends, *([(zero, 0)] if has_space else [])))


def _bars(each: DailyCredits, x: float, step: float, zero: float, scale: float) -> list[Bar]:
    spent, taken_back = max(each.spent, 0), max(each.taken_back, 0)
    heights = [
        ("sold", each.sold, zero - each.sold * scale),
        ("spent", spent, zero),
        ("taken-back", taken_back, zero + spent * scale),
    ]
    left, width = round(x + step * 0.15, 1), round(step * 0.7, 1)
    return [
        Bar(kind, left, round(y, 1), width, round(credits_ * scale, 1), each.day, credits_)
        for kind, credits_, y in heights
        if credits_
    ]
