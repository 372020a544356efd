"""What a retry takes from the objects at Stripe, without a database and with given objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.recorded import USER_ID, VERSIONS, invoice_event, payment_intent_event, recorded, session_event
from webhook.events.corrections import Correction, corrected, event_of_sale
from webhook.events.event import read_event
from webhook.events.invoice_lines import subscription_details_of
from webhook.events.lookups import Lookup, MissingObjectError, PaymentSessions, RelatedObject

OTHER = "00000000-0000-4000-8000-000000000002"
SESSION, PAYMENT = "/v1/checkout/sessions/cs_1", "/v1/payment_intents/pi_1"
INVOICE, SUBSCRIPTION = "/v1/invoices/in_1", "/v1/subscriptions/sub_1"


def correct(event: dict[str, Any], reason: str, objects: Mapping[str, dict[str, str]]) -> Correction:
    """Correct the event with this metadata of the objects at these paths; the others are missing at Stripe."""

    def resolve(lookup: Lookup) -> Any:
        assert isinstance(lookup, RelatedObject)
        if lookup.path not in objects:
            raise MissingObjectError
        return {"metadata": objects[lookup.path]}

    return corrected(read_event(json.dumps(event)), reason, resolve)


def session(**fields: Any) -> dict[str, Any]:
    return session_event(id="cs_1", payment_intent="pi_1", **fields)


def invoice(version: str = VERSIONS[-1], snapshot: dict[str, str] | None = None, **own: str) -> dict[str, Any]:
    """Return an invoice of sub_1 with this snapshot of the subscription's metadata and this metadata of its own."""
    event = recorded("invoice.paid", version)
    source = event["data"]["object"]
    details = subscription_details_of(source)
    details["metadata"] = snapshot or {}
    (details if "subscription" in details else source)["subscription"] = "sub_1"
    source |= {"id": "in_1", "metadata": own}
    return event


def names(correction: Correction) -> dict[str, str]:
    """Return the metadata that decides about the corrected event."""
    source = correction.event.object
    return dict((subscription_details_of(source).get("metadata") or {}) | source["metadata"])


def test_session_takes_its_current_metadata() -> None:
    found = correct(session(), "missing_user", {SESSION: {"user_id": OTHER, "credits": "7"}, PAYMENT: {}})
    assert names(found) == {"user_id": OTHER, "credits": "7"}


def test_session_keeps_its_money_and_status() -> None:
    event = session(amount=1000)
    found = correct(event, "missing_user", {SESSION: {}, PAYMENT: {}})
    assert found.event.object == event["data"]["object"] | {"metadata": {}}


@pytest.mark.parametrize("credits", ["ten", "-1", "1000000001"])
def test_session_takes_what_it_lacks_from_its_payment(credits: str) -> None:  # noqa: A002
    objects = {SESSION: {"credits": credits}, PAYMENT: {"user_id": USER_ID, "credits": "100"}}
    found = correct(session(user_id=None), "missing_user", objects)
    assert names(found) == {"user_id": USER_ID, "credits": "100"}


def test_session_keeps_valid_values_beside_its_payment() -> None:
    objects = {SESSION: {"user_id": USER_ID, "credits": "100"}, PAYMENT: {"user_id": OTHER, "credits": "1"}}
    assert names(correct(session(), "invalid_credits", objects)) == {"user_id": USER_ID, "credits": "100"}


def test_session_keeps_its_client_reference_beside_its_payment() -> None:
    event = session(client_reference_id=USER_ID)
    found = correct(event, "missing_credits", {SESSION: {}, PAYMENT: {"user_id": OTHER, "credits": "1"}})
    assert names(found) == {"credits": "1"}


@pytest.mark.parametrize("user_id", ["42", "order_1234", ""])
def test_session_ignores_another_systems_user_of_its_payment(user_id: str) -> None:
    objects = {SESSION: {"credits": "100"}, PAYMENT: {"user_id": user_id, "credits": "ten"}}
    assert names(correct(session(user_id=None), "missing_user", objects)) == {"credits": "100"}


def test_payment_takes_its_current_metadata() -> None:
    event = payment_intent_event(id="pi_1", user_id=None)
    assert names(correct(event, "missing_user", {PAYMENT: {"user_id": OTHER}})) == {"user_id": OTHER}


@pytest.mark.parametrize("version", VERSIONS)
def test_invoice_takes_what_its_snapshot_lacks(version: str) -> None:
    event = invoice(version, {"credits": "100"})
    found = correct(event, "missing_user", {INVOICE: {}, SUBSCRIPTION: {"user_id": USER_ID, "credits": "1200"}})
    assert names(found) == {"user_id": USER_ID, "credits": "100"}


def test_invoice_keeps_its_user_after_the_subscription_moved() -> None:
    event = invoice(snapshot={"user_id": USER_ID})
    found = correct(event, "missing_credits", {INVOICE: {}, SUBSCRIPTION: {"user_id": OTHER, "credits": "100"}})
    assert names(found) == {"user_id": USER_ID, "credits": "100"}


def test_invoice_of_an_unknown_user_takes_the_current_one() -> None:
    event = invoice(snapshot={"user_id": OTHER, "credits": "100"})
    found = correct(event, "unknown_user", {INVOICE: {}, SUBSCRIPTION: {"user_id": USER_ID}})
    assert names(found) == {"user_id": USER_ID, "credits": "100"}


def test_invoice_with_a_bad_user_of_its_own_takes_the_subscriptions() -> None:
    objects = {INVOICE: {"user_id": "42"}, SUBSCRIPTION: {"user_id": USER_ID}}
    found = correct(invoice(snapshot={"credits": "100"}, user_id="42"), "unknown_user", objects)
    assert names(found) == {"user_id": USER_ID, "credits": "100"}


def test_invoice_with_credits_of_its_own_takes_no_others() -> None:
    """Credits of its own count without a period; those of the subscription do not."""
    objects = {INVOICE: {"credits": "ten"}, SUBSCRIPTION: {"credits": "100"}}
    found = correct(invoice(snapshot={"user_id": USER_ID}, credits="ten"), "invalid_credits", objects)
    assert names(found) == {"user_id": USER_ID, "credits": "ten"}


@pytest.mark.parametrize(("given", "is_looked_up"), [(None, True), ("ten", True), ("100", False)])
def test_old_invoices_price_without_credits_is_looked_up(given: str | None, is_looked_up: bool) -> None:  # noqa: FBT001
    """API versions before 2025-03-31.basil copy the price into the line."""
    event = invoice(VERSIONS[0])
    [line, *_] = event["data"]["object"]["lines"]["data"]
    line["price"]["metadata"] = {} if given is None else {"credits": given}
    found = correct(event, "invalid_credits", {INVOICE: {}, SUBSCRIPTION: {}})
    [read, *_] = found.event.object["lines"]["data"]
    assert read["price"] == (line["price"]["id"] if is_looked_up else line["price"])


def test_objects_missing_at_stripe_change_nothing() -> None:
    event = session(user_id=None)
    found = correct(event, "missing_user", {})
    assert (found.event.object, found.missing) == (event["data"]["object"], ("cs_1", "pi_1"))


def test_event_without_a_sale_is_not_looked_up() -> None:
    event = recorded("refund.created")
    assert correct(event, "missing_user", {}) == Correction(read_event(json.dumps(event)))


SOLD = {"/v1/invoices/in_1": "invoice.paid", "/v1/checkout/sessions/cs_1": "checkout.session.completed"}


@pytest.mark.parametrize("path", SOLD)
def test_sale_parked_without_an_event_is_read_from_stripe(path: str) -> None:
    sale_id = path.rpartition("/")[2]
    event = event_of_sale(sale_id, True, None, {RelatedObject(path): {"id": sale_id}}.__getitem__)  # noqa: FBT003
    assert event
    assert (event.id, event.type, event.livemode, event.object) == (sale_id, SOLD[path], True, {"id": sale_id})


@pytest.mark.parametrize(
    ("sessions", "event_type"),
    [([], "payment_intent.succeeded"), ([{"id": "cs_1"}], "checkout.session.completed")],
)
def test_payment_parked_without_an_event_is_read_by_its_session(sessions: list[Any], event_type: str) -> None:
    answers: dict[Lookup, Any] = {RelatedObject(PAYMENT): {"id": "pi_1"}, PaymentSessions("pi_1"): sessions}
    event = event_of_sale("pi_1", False, None, answers.__getitem__)  # noqa: FBT003
    assert event
    assert event.type == event_type


def test_sale_of_an_unknown_kind_is_not_read() -> None:
    assert event_of_sale("xx_1", False, None, lambda _: None) is None  # noqa: FBT003


def test_user_of_the_recorded_invoice_is_in_its_subscription() -> None:
    assert names(correct(invoice_event(), "x", {})) == {"user_id": USER_ID, "credits": "100"}
