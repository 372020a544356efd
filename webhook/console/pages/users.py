"""The page of a user: balance, holds, and the ledger with a running balance."""

from __future__ import annotations

from uuid import UUID

from flask import Response, request
from werkzeug.exceptions import NotFound

from webhook.console.console import Console
from webhook.console.content import cursors
from webhook.console.content.stories import shown
from webhook.explain.story import load_user


def register(console: Console) -> None:
    """Add the page."""

    @console.view("/console/users/<uuid:user_id>")
    def user(user_id: UUID) -> Response:
        before = cursors.read(console, str(user_id), request.args.get("before", ""))
        story = load_user(console.ledger, str(user_id), before)
        if story is None:
            raise NotFound("There is no user with this id.")
        has_stripe = console.stripe is not None
        return console.page(
            "pages/story.html",
            shown=shown(console, story),
            has_stripe=has_stripe,
            payload=None,
        )
