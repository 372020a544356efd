"""The page of a sale, by any of its payments."""

from __future__ import annotations

from flask import redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from webhook.console.console import Console
from webhook.console.content.stories import shown
from webhook.explain.story import load_sale


def register(console: Console) -> None:
    """Add the page."""

    @console.view("/console/sales/<path:payment_id>")
    def sale(payment_id: str) -> AnyResponse:
        story = load_sale(console.ledger, payment_id) if "\x00" not in payment_id else None
        if story is None:
            return redirect(url_for("console.search", q=payment_id), 303)
        has_stripe = console.stripe is not None
        return console.page(
            "pages/story.html",
            shown=shown(console, story),
            has_stripe=has_stripe,
            payload=None,
        )
