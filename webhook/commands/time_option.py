"""Moments as an operator types them: ``3d``, ``12h``, ``2026-11-01``, ``2026-11-01T12:30:00Z``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_FIRST = datetime(2011, 1, 1, tzinfo=UTC)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """A point in time: so long ago, or a date and time of ISO 8601, in UTC unless it says otherwise."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment; raises :class:`click.BadParameter`."""
        if isinstance(value, datetime):
            return value
        try:
            if ago := _AGO.fullmatch(value):
                moment = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            else:
                moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time ago, such as 3d, 12h or 2w, and no date, such as 2026-11-01", param, ctx)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if moment < _FIRST:
            self.fail(f"{value!r} is before {_FIRST:%Y}, when there was no Stripe", param, ctx)
        return moment
