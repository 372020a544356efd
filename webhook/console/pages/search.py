"""The search: what was found, or several candidates compared. Stripe is searched on request."""

from __future__ import annotations

from flask import Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from webhook.console.console import Console
from webhook.console.content.advice import worded
from webhook.console.content.stories import shown
from webhook.console.requests import is_from_here
from webhook.explain.escapes import printable
from webhook.explain.reply import reply
from webhook.explain.report import Report, full_answer

LONGEST_SEARCH = 500


def register(console: Console) -> None:
    """Add the page."""

    @console.view("/console/search")
    def search() -> AnyResponse:
        text = request.args.get("q", "")[:LONGEST_SEARCH].strip()
        if not text:
            return redirect(url_for("console.home"), 303)
        # A link of another site must not use up Stripe's rate limit. The page has the button.
        asks_stripe = request.args.get("stripe") == "1" and is_from_here(request.environ)
        stripe = console.stripe if asks_stripe else None
        report = full_answer(console.ledger, text, stripe, console.settings.scope.every_account)
        return _page(console, text, report, asked_stripe=stripe is not None)


def _page(console: Console, text: str, report: Report, *, asked_stripe: bool) -> Response:
    story = shown(console, report.story) if report.story else None
    return console.page(
        "pages/search.html",
        text=printable(text),
        candidates=report.candidates,
        searched=report.searched if asked_stripe or report.story is None else (),
        dashboard=report.dashboard,
        has_stripe=console.stripe is not None,
        can_search_stripe=console.stripe is not None and not asked_stripe,
        shown=story,
        verdict=worded(report.verdict, has_stripe=console.stripe is not None),
        reply=None if story else reply(report.verdict, None),
    )
