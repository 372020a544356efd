"""Assign a sale to a user, set its credits, or withdraw the latest assignment: form, preview and action."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from webhook.actions.assign import NotAssignableError, Prepared, Request, prepare
from webhook.actions.assign import assign as do_assign
from webhook.actions.assignment_preview import AssignmentPreview, preview_assignment
from webhook.console.console import Console
from webhook.console.content import forms
from webhook.console.content.advice import accounts_of, in_words
from webhook.console.content.forms import FieldError, Form
from webhook.console.content.known import load_account, load_known, names_of, other_payer
from webhook.console.content.stories import equation
from webhook.console.login import OPERATOR
from webhook.console.pages.adjust import UNANSWERED
from webhook.events.sales import user_id_of
from webhook.explain.story import load_sale
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError, RuleError
from webhook.ledger.operator import Assigned

_LINKED = ("name", "user", "withdraw")
"""The fields that a link may fill in. The reason has to be typed: a link may come from somebody else."""


def register(console: Console) -> None:
    """Add the pages and the action."""

    @console.view("/console/assign", role=OPERATOR)
    def assign_form() -> Response:
        return _form(console, MultiDict({name: request.args.get(name, "") for name in _LINKED}))

    @console.action("/console/assign/preview")
    def assign_preview() -> Response:
        try:
            asked, reason = _asked(console, request.form, forms.new_action_id()), forms.reason(request.form)
            preview = _previewed(console, asked)
        except (FieldError, NotAssignableError) as error:
            return _form(console, request.form, problem=in_words(str(error), request.form.get("name")))
        return _preview(console, asked, reason, preview)

    @console.action("/console/assign")
    def assign() -> AnyResponse:
        asked = _asked(console, request.form, forms.action_id(request.form))
        reason = forms.reason(request.form)
        try:
            prepared = prepare(asked, console.worker_ledger, lambda: console.stripe_api)
            done = _assigned(console, asked, prepared, reason)
        except RuleError as error:
            return _preview(
                console, asked, reason, _previewed(console, asked), problem=in_words(str(error)), status=409
            )
        except LedgerRefusedError:
            raise
        except LedgerUnavailableError:
            return console.page("pages/unanswered.html", problem=UNANSWERED, form=request.form, status=503)
        names = names_of((each.user_id for each in done.changes), console.ledger)
        notice, payment_id = _notice(done, names), prepared.assignment.payment_id
        if load_sale(console.ledger, payment_id):
            return console.see_other("sale", payment_id=payment_id, notice=notice)
        return console.see_other("parked_event", event_id=asked.name, notice=notice)


def _asked(console: Console, form: Form, action_id: str) -> Request:
    """Return the request of a form; raises :class:`FieldError`."""
    name, withdraws = forms.identifier(form, "name"), form.get("withdraw") == "1"
    if withdraws:
        return Request(name, None, None, action_id, withdraws=True, allow_debt=form.get("allow_debt") == "yes")
    user_id, credits_ = _user(console, form), forms.optional_credits(form, console.max_credits)
    if user_id is None and credits_ is None:
        raise FieldError("Name the user, the credits or both.")
    return Request(name, user_id, credits_, action_id, allow_debt=form.get("allow_debt") == "yes")


def _user(console: Console, form: Form) -> str | None:
    """Return the user's id. The field may have the e-mail address of one account; raises :class:`FieldError`."""
    value = form.get("user", "").replace("\x00", "").strip()
    if not value:
        return None
    if found := user_id_of(value):
        return found.lower()
    accounts = accounts_of(value, console.ledger)
    if len(accounts) == 1:
        return accounts[0].user_id
    if not accounts:
        raise FieldError("No account has this id or e-mail address.")
    raise FieldError(f"Several accounts have this address: {', '.join(account.user_id for account in accounts)}.")


def _previewed(console: Console, asked: Request) -> AssignmentPreview:
    return preview_assignment(asked, console.ledger, console.worker_ledger, lambda: console.stripe_api)


def _assigned(console: Console, asked: Request, prepared: Prepared, reason: str) -> Assigned:
    return do_assign(
        prepared.assignment,
        console.operator(reason),
        console.operators,
        allow_debt=asked.allow_debt,
        most_credits=console.max_credits,
    )


def _form(console: Console, fields: Form, problem: str | None = None) -> Response:
    return console.page(
        "pages/assign.html",
        fields=forms.prefilled(fields),
        known=load_known(fields.get("name", "").strip(), console.ledger),
        withdraws=fields.get("withdraw") == "1",
        most=console.max_credits,
        problem=problem,
        status=400 if problem else 200,
    )


def _preview(console: Console, asked: Request, reason: str, preview: AssignmentPreview, **page: Any) -> Response:
    values = {"id": asked.id, "name": asked.name, "user": asked.user_id, "credits": asked.credits, "reason": reason}
    known, sale = load_known(asked.name, console.ledger), preview.story.sale
    user_id = preview.ends.user_id if preview.ends else sale.user_id if sale else None
    account = load_account(user_id, console.ledger)
    return console.page(
        "pages/assign_preview.html",
        asked=asked,
        known=known,
        user_id=user_id,
        account=account,
        other_payer=None if asked.withdraws else other_payer(known, account),
        preview=preview,
        formula=equation(preview.settlement),
        is_too_much=preview.most_credits > console.max_credits,
        most=console.max_credits,
        reason=reason,
        values=values | {"withdraw": "1" if asked.withdraws else None},
        **{"problem": None, **page},
    )


def _notice(done: Assigned, names: dict[str, str]) -> str:
    said = [f"Action {done.number}" + ("" if done.is_new else " was done before")]
    said += [f"{each.credits:+,} credits for {names[each.user_id]}, balance {each.balance:,}" for each in done.changes]
    if done.unsettled:
        said.append(f"the sale is not settled yet: {done.unsettled}")
    elif not done.is_paid:
        said.append("the sale grants its credits once it is paid")
    elif done.is_new and not done.changes:
        said.append("credits unchanged")
    return "; ".join(said) + "."
