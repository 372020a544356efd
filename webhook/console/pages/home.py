"""The first page: the search."""

from __future__ import annotations

from flask import Response

from webhook.console.console import Console


def register(console: Console) -> None:
    """Add the page."""

    @console.view("/console")
    def home() -> Response:
        return console.page("pages/home.html")
