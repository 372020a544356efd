"""Text on the command line that is stored or printed in one line."""

from __future__ import annotations

from typing import Any

import click


class TextParameter(click.ParamType[str]):
    """One line of text: not empty, and without control characters."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; raises :class:`click.BadParameter`."""
        text = str(value)
        if not (text.strip() and text.isprintable()):
            self.fail("it must be one line of text", param, ctx)
        return text
