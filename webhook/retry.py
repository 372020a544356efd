"""One retry of a parked event: with its stored body, then with the current metadata of its objects at Stripe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from webhook.delivery import settle
from webhook.events.corrections import CORRECTABLE, corrected, event_of_sale
from webhook.events.event import Event, EventScope, read_event
from webhook.events.fields import UnexpectedShapeError
from webhook.ledger.ledger import Ledger, Outcome, ParkedEvent
from webhook.stripe_api.client import StripeAPI
from webhook.stripe_api.errors import StripeUnavailableError

SALE_WITHOUT_EVENT = "billing.sale"
"""The type of an entry that stands for a sale: its events were settled before it lost its user."""

_PERMISSIONS = "Checkout Sessions, PaymentIntents, Invoices and Subscriptions: Read"
"""What a restricted key needs to read the current metadata."""

_SETTINGS = {"wrong_mode": "STRIPE_LIVEMODE", "missing_api_key": "STRIPE_API_KEY"}
"""The settings whose correction changes these outcomes."""


@dataclass(frozen=True)
class Retry:
    """The settings of a retry."""

    ledger: Ledger
    scope: EventScope
    stripe_api: StripeAPI | None = None

    def settle(self, parked: ParkedEvent) -> Outcome:
        """Settle an open event, or leave it parked.

        The reason of the outcome ``parked`` is for people: it may name a missing setting or a missing object. Raises
        :class:`LedgerUnavailableError` or :class:`StripeUnavailableError`; then the event stays parked.
        """
        if parked.resolution or parked.payload is None:
            return Outcome("duplicate")
        attempt = self._settle_sale if parked.type == SALE_WITHOUT_EVENT else self._settle_event
        outcome = attempt(parked, parked.payload)
        if outcome.name == "ignored" and outcome.missing_setting is None:
            self.ledger.resolve(parked.id)
        return _described(outcome)

    def _settle_event(self, parked: ParkedEvent, payload: str) -> Outcome:
        event = read_event(payload)
        outcome = settle(event, payload, self.ledger, self.scope, self.stripe_api)
        reason = _correctable_reason(outcome, parked)
        return self._settle_corrected(event, reason, payload, outcome) if reason else outcome

    def _settle_sale(self, parked: ParkedEvent, payload: str) -> Outcome:
        """Settle a sale that lost its user after its events were settled. Its object is read from Stripe."""
        reason = self.ledger.settle_parked_sale(parked.payment_id or parked.id)
        if reason is None:
            return Outcome("recorded")
        outcome = Outcome("parked", reason)
        if self.stripe_api is None:
            return outcome
        event = self._current_event(parked.id, self.stripe_api)
        if event is None:
            return replace(outcome, missing_objects=(parked.id,))
        corrected_outcome = self._settle_corrected(event, reason, payload, outcome)
        return outcome if corrected_outcome.name == "ignored" else corrected_outcome

    def _current_event(self, sale_id: str, stripe_api: StripeAPI) -> Event | None:
        """Return the event that describes a sale as it is at Stripe now, ``None`` if no account has it."""
        events = (
            event_of_sale(sale_id, self.scope.livemode, account, stripe_api.resolver(account))
            for account in self.scope.every_account
        )
        return next((event for event in events if event), None)

    def _settle_corrected(self, event: Event, reason: str, payload: str, outcome: Outcome) -> Outcome:
        """Settle the event with the current metadata of its objects."""
        if self.stripe_api is None:
            return outcome
        try:
            correction = corrected(event, reason, self.stripe_api.resolver(event.account))
        except UnexpectedShapeError:
            return outcome
        except StripeUnavailableError as error:
            raise error.with_permission_hint(_PERMISSIONS) from error
        outcome = settle(correction.event, payload, self.ledger, self.scope, self.stripe_api)
        return replace(outcome, missing_objects=correction.missing)


def _correctable_reason(outcome: Outcome, parked: ParkedEvent) -> str | None:
    """Return why the event is parked, if metadata or a price at Stripe can change that and can be read."""
    if outcome.name not in ("parked", "ignored") or outcome.missing_setting or outcome.reason in _SETTINGS:
        return None
    return next((each for each in (outcome.reason, parked.reason) if each in CORRECTABLE), None)


def _described(outcome: Outcome) -> Outcome:
    """Return the outcome with a reason for people. An event whose settings are incomplete stays parked."""
    setting = outcome.missing_setting
    if outcome.name == "ignored" and setting:
        return replace(outcome, name="parked", reason=f"{outcome.reason}: set {setting}")
    if outcome.name != "parked":
        return outcome
    setting = setting or _SETTINGS.get(str(outcome.reason))
    notes = [f"set {setting}"] if setting else []
    notes += [f"Stripe does not have {missing} any more" for missing in outcome.missing_objects]
    return replace(outcome, reason=": ".join([str(outcome.reason), *notes]))
