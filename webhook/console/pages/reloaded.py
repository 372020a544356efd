"""Pages for a reload of an action's address. The browser then sends a GET, which changes nothing."""

from __future__ import annotations

from uuid import UUID

from flask import Response, url_for

from webhook.console.console import Console


def register(console: Console) -> None:
    """Add the pages."""

    @console.view("/console/assign/preview")
    def assign_preview_reloaded() -> Response:
        return _page(console, url_for("console.assign_form"), "Open the form again")

    @console.view("/console/users/<uuid:user_id>/adjust/preview")
    def adjust_preview_reloaded(user_id: UUID) -> Response:
        return _page(console, url_for("console.adjust_form", user_id=user_id), "Open the form again")

    @console.view("/console/retry")
    def retry_reloaded() -> Response:
        return _page(console, url_for("console.parked"), "Back to the parked events")

    @console.view("/console/reconcile")
    def reconcile_reloaded() -> Response:
        return _page(console, url_for("console.home"), "Back to the search")


def _page(console: Console, back: str, label: str) -> Response:
    return console.page("pages/reloaded.html", back=back, label=label)
