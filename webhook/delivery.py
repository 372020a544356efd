"""One delivery: interpret its event, then record or park it."""

from __future__ import annotations

from dataclasses import replace

from webhook.events.event import Event, EventScope
from webhook.events.facts import Facts, Ignored, Unresolvable
from webhook.events.interpret import interpret
from webhook.events.lookups import no_lookups
from webhook.ledger.ledger import Ledger, Outcome
from webhook.stripe_api.client import StripeAPI


def settle(event: Event, text: str, ledger: Ledger, scope: EventScope, stripe_api: StripeAPI | None = None) -> Outcome:
    """Record the event's facts, or park the event; ``text`` is its body.

    Returns after the commit. Raises :class:`LedgerUnavailableError` or :class:`StripeUnavailableError`. A request to
    Stripe holds no connection to the database.
    """
    match interpret(event, scope, stripe_api.resolver(event.account) if stripe_api else no_lookups):
        case Ignored(reason, missing_setting):
            return Outcome("ignored", reason, missing_setting)
        case Unresolvable(reason, payment_id, ()):
            return ledger.park(event, reason, payment_id, text)
        case Facts(facts) | Unresolvable(facts=facts) as interpretation:
            outcome = ledger.record(event.id, facts)
            if outcome.name == "unsettled":
                return ledger.park(event, str(outcome.reason), interpretation.payment_id, text)
            if outcome.reason == "no_credits" and stripe_api is None:
                return replace(outcome, missing_setting="STRIPE_API_KEY")  # its prices could name credits
            return outcome
