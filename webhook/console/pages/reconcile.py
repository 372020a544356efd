"""Reconcile one payment with Stripe."""

from __future__ import annotations

from flask import request
from werkzeug.exceptions import Conflict
from werkzeug.wrappers import Response as AnyResponse

from webhook.actions.reconcile import Reconciliation
from webhook.actions.reconcile import reconcile as do_reconcile
from webhook.console.console import Console
from webhook.console.content import forms
from webhook.explain.story import load_sale


def register(console: Console) -> None:
    """Add the action."""

    @console.action("/console/reconcile")
    def reconcile() -> AnyResponse:
        name = forms.identifier(request.form, "id")
        if console.stripe is None:
            raise Conflict("Set STRIPE_API_KEY: a restricted key that only reads is enough.")
        found = do_reconcile(name, console.worker_ledger, console.stripe, console.settings.scope)
        payment_id = _known_payment(console, name, found)
        if payment_id is None:
            return console.see_other("search", q=name, notice=found.sentence)
        return console.see_other("sale", payment_id=payment_id, notice=found.sentence)


def _known_payment(console: Console, name: str, found: Reconciliation) -> str | None:
    """Return a payment of the sale that the database knows now."""
    payment_ids = dict.fromkeys([name, *found.payment_ids])
    return next((each for each in payment_ids if load_sale(console.ledger, each)), None)
