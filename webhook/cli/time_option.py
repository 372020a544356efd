"""Times on the command line: ``3d``, ``12h``, ``2026-11-01``, ``2026-11-01T12:30:00Z``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_AGE = re.compile(r"(\d{1,6})([mhdw])")
_EARLIEST = datetime(2011, 1, 1, tzinfo=UTC)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class TimeParameter(click.ParamType[datetime]):
    """A time in the past: an age (``3d``), or a date and time of ISO 8601, in UTC by default."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, with its time zone; raises :class:`click.BadParameter`."""
        if isinstance(value, datetime):
            return value
        try:
            if age := _AGE.fullmatch(value):
                time = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
            else:
                time = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age such as 3d, 12h or 2w, nor a date such as 2026-11-01", param, ctx)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        if time < _EARLIEST:
            self.fail(f"{value!r} is before {_EARLIEST:%Y}, when Stripe launched", param, ctx)
        return time
