"""The list of parked events, one event, and what can be done about it: retry and discard."""

from __future__ import annotations

from flask import Response, redirect, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from webhook.actions.parked import discard as do_discard
from webhook.actions.parked import reopened
from webhook.actions.retry import Retried, retry_event
from webhook.console.console import Console
from webhook.console.content import forms
from webhook.console.content.advice import in_words
from webhook.console.content.known import load_known
from webhook.console.content.stories import payload_of, shown
from webhook.console.login import OPERATOR
from webhook.events.fields import IDENTIFIER
from webhook.explain.overview import MOST_COUNTED, load_health
from webhook.explain.parked_list import ParkedPage, Position, State, load_parked
from webhook.explain.records import ParkedEvent
from webhook.explain.story import load_event
from webhook.remedies import REMEDIES, remedy
from webhook.retry import Retry


def register(console: Console) -> None:
    """Add the pages and actions."""
    _register_list(console)
    _register_event(console)
    _register_actions(console)


def retry_of(console: Console) -> Retry:
    """Return the retry of the console, with its own connections and its own access to Stripe."""
    return Retry(console.worker_ledger, console.settings.scope, console.stripe_api)


def outcome_of(retried: Retried) -> str:
    """Return the outcome of a retry as a sentence."""
    if retried.error:
        return f"{retried.event_id} stays parked: {retried.error}"
    if not retried.is_settled:
        return f"{retried.event_id} stays parked: {retried.note}"
    if retried.outcome.name == "ignored":
        return f"{retried.event_id} has nothing to do with credits ({retried.note}) and is off the list."
    return (
        f"{retried.event_id} is settled." if retried.note in ("", "settled") else f"{retried.event_id}: {retried.note}"
    )


def _notice(retried: Retried) -> str:
    outcome = outcome_of(retried)
    return outcome if retried.is_settled else f"{outcome}. Nothing was changed. This page shows what is still to do."


def _register_list(console: Console) -> None:
    @console.view("/console/parked")
    def parked() -> Response:
        state: State = "discarded" if request.args.get("state") == "discarded" else "open"
        reason = next((each for each in REMEDIES if each == request.args.get("reason")), None)
        page = load_parked(console.ledger, state, reason, Position.parse(request.args.get("after", "")))
        return console.page(
            "pages/parked.html",
            state=state,
            reason=reason,
            events=page.events,
            counts=_counts(console),
            remedies=_remedies(console, page.events) if state == "open" else [],
            next_href=_next_href(state, reason, page),
        )


def _register_event(console: Console) -> None:
    @console.view("/console/parked/<path:event_id>")
    def parked_event(event_id: str) -> Response:
        story = load_event(console.ledger, event_id) if IDENTIFIER.fullmatch(event_id) else None
        if story is None:
            raise NotFound("This event was never parked.")
        payload = None
        if console.me.role == OPERATOR:
            [row] = console.ledger.rows("parked_event", event_id=event_id)
            payload = payload_of(row["payload"])
        return console.page(
            "pages/story.html",
            shown=shown(console, story),
            has_stripe=console.stripe is not None,
            payload=payload,
        )


def _register_actions(console: Console) -> None:
    @console.action("/console/retry")
    def retry() -> AnyResponse:
        event_id = forms.identifier(request.form, "event_id")
        [event] = reopened(console.worker_ledger, [event_id])
        retried = retry_event(retry_of(console), event)
        if retried.is_settled and event.payment_id:
            return console.see_other("sale", payment_id=event.payment_id, notice=outcome_of(retried))
        return console.see_other("parked_event", event_id=event_id, notice=_notice(retried))

    @console.view("/console/discard", role=OPERATOR)
    def discard_form() -> AnyResponse:
        story = load_event(console.ledger, request.args.get("event_id", "").replace("\x00", ""))
        if story is None:
            raise NotFound("This event was never parked.")
        if story.event.resolution:
            return redirect(url_for("console.parked_event", event_id=story.event.id), 303)
        return _discard_page(console, story.event.id)

    @console.action("/console/discard")
    def discard() -> AnyResponse:
        event_id = forms.identifier(request.form, "event_id")
        try:
            reason = forms.reason(request.form)
        except forms.FieldError as error:
            return _discard_page(console, event_id, str(error))
        number = do_discard([event_id], console.operator(reason), console.operators)[event_id]
        notice = f"{event_id} was discarded before." if number is None else f"Action {number}: {event_id} is discarded."
        return console.see_other("parked_event", event_id=event_id, notice=notice)


def _discard_page(console: Console, event_id: str, problem: str | None = None) -> Response:
    status = 400 if problem else 200
    return console.page(
        "pages/discard.html",
        event_id=event_id,
        known=load_known(event_id, console.ledger),
        problem=problem,
        status=status,
    )


def _counts(console: Console) -> list[tuple[str, str]]:
    """Return the reasons of open events with their number."""
    parked = load_health(console.ledger).parked
    return [(reason, f"{count}" if count < MOST_COUNTED else f"{count} or more") for reason, count in parked.items()]


def _remedies(console: Console, events: tuple[ParkedEvent, ...]) -> list[tuple[str, str]]:
    has_stripe = console.stripe is not None
    return sorted({(event.reason, in_words(remedy(event), has_stripe=has_stripe)) for event in events})


def _next_href(state: State, reason: str | None, page: ParkedPage) -> str | None:
    return url_for("console.parked", state=state, reason=reason, after=str(page.next)) if page.next else None
