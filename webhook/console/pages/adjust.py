"""Adjust a user's balance: a form, a preview that fixes the action's id, and the action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import Response, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from webhook.actions.adjust import adjust as do_adjust
from webhook.actions.adjust import preview_adjustment
from webhook.console.console import Console
from webhook.console.content import forms
from webhook.console.content.advice import in_words
from webhook.console.content.forms import FieldError, Form
from webhook.console.login import OPERATOR
from webhook.explain.story import User, load_user
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError, RuleError
from webhook.ledger.operator import Adjusted, Adjustment

UNANSWERED = "The database did not answer, so it may be done or not. Send it again: it acts once."


@dataclass(frozen=True)
class _Asked:
    """The fields of the form."""

    takes: bool
    credits: int
    reason: str
    description: str | None

    @property
    def amount(self) -> int:
        """The credits with their sign."""
        return -self.credits if self.takes else self.credits


def register(console: Console) -> None:
    """Add the pages and the action."""

    @console.view("/console/users/<uuid:user_id>/adjust", role=OPERATOR)
    def adjust_form(user_id: UUID) -> Response:
        return _form(console, _user(console, user_id), MultiDict())

    @console.action("/console/users/<uuid:user_id>/adjust/preview")
    def adjust_preview(user_id: UUID) -> Response:
        user = _user(console, user_id)
        try:
            asked = _asked(request.form, console.max_credits)
        except FieldError as error:
            return _form(console, user, request.form, problem=str(error))
        return _preview(console, user, asked, forms.new_action_id())

    @console.action("/console/users/<uuid:user_id>/adjust")
    def adjust(user_id: UUID) -> AnyResponse:
        asked, action_id = _asked(request.form, console.max_credits), forms.action_id(request.form)
        adjustment = Adjustment(action_id, str(user_id), asked.amount, asked.description)
        try:
            done = do_adjust(
                adjustment,
                console.operator(asked.reason),
                console.operators,
                allow_debt=request.form.get("allow_debt") == "yes",
                most_credits=console.max_credits,
            )
        except RuleError as error:
            return _preview(
                console, _user(console, user_id), asked, action_id, problem=in_words(str(error)), status=409
            )
        except LedgerRefusedError:
            raise
        except LedgerUnavailableError:
            return console.page("pages/unanswered.html", problem=UNANSWERED, form=request.form, status=503)
        return console.see_other("user", user_id=user_id, notice=_notice(done, asked.amount))


def _asked(form: Form, most: int) -> _Asked:
    """Return the fields; raises :class:`FieldError`."""
    if form.get("direction") not in ("give", "take"):
        raise FieldError("Choose to give or to take credits.")
    description = forms.optional_text(form, "description", "The description", forms.LONGEST_DESCRIPTION)
    return _Asked(form["direction"] == "take", forms.credits_(form, most), forms.reason(form), description)


def _user(console: Console, user_id: UUID) -> User:
    story = load_user(console.ledger, str(user_id))
    if story is None:
        raise NotFound("There is no user with this id.")
    return story.user


def _form(console: Console, user: User, fields: Form, problem: str | None = None) -> Response:
    return console.page(
        "pages/adjust.html",
        user=user,
        fields=forms.prefilled(fields),
        most=console.max_credits,
        problem=problem,
        status=400 if problem else 200,
    )


def _preview(console: Console, user: User, asked: _Asked, action_id: str, **page: Any) -> Response:
    values = {"direction": "take" if asked.takes else "give", "credits": asked.credits, "reason": asked.reason}
    return console.page(
        "pages/adjust_preview.html",
        user=user,
        asked=asked,
        preview=preview_adjustment(user, asked.amount),
        values=values | {"description": asked.description},
        action_id=action_id,
        **{"problem": None, **page},
    )


def _notice(done: Adjusted, amount: int) -> str:
    if not done.is_new:
        return f"Action {done.number} was done before. The balance is {done.balance:,}."
    return f"Action {done.number}: {amount:+,} credits. Balance {done.balance - amount:,} → {done.balance:,}."
