"""The recorded events match the type hints of the installed Stripe SDK."""

from __future__ import annotations

import ast
import hmac
import inspect
import json
import re
import sys
import typing
from decimal import Decimal, InvalidOperation
from functools import cache, reduce
from importlib import import_module
from operator import getitem
from typing import Any

import pytest
import stripe
from stripe._stripe_object import UntypedStripeObject

from support.recorded import (
    EVENTS,
    NEWEST,
    USER_ID,
    VERSIONS,
    dispute_event,
    payment_intent_event,
    recorded,
    refund_event,
    session_event,
    sign,
)

KINDS = (
    stripe.checkout.Session,
    stripe.PaymentIntent,
    stripe.Charge,
    stripe.Refund,
    stripe.Dispute,
    stripe.Invoice,
    stripe.InvoicePayment,
    stripe.Customer,
    stripe.Product,
)
SHAPES = {kind.OBJECT_NAME: kind for kind in KINDS}
EVERY = [(file.parent.name, file.stem) for file in sorted(EVENTS.glob("*/*.json"))]
NEW = [name for version, name in EVERY if version == NEWEST]
SECRET = "whsec_recorded"
GONE = object()

# All differences of older API versions from the newest type hints: fields removed, renamed or added since.
CHANGED_SINCE = {
    "2022-11-15": {
        "charge.destination: unknown",
        "charge.dispute: unknown",
        "charge.invoice: unknown",
        "charge.order: unknown",
        "checkout.session.shipping_details: unknown",
        "dispute.balance_transaction: unknown",
        "dispute.balance_transactions[].balance_type: missing",
        "dispute.enhanced_eligibility_types: missing",
        "dispute.evidence.enhanced_evidence: missing",
        "dispute.evidence_details.enhanced_eligibility: missing",
        "dispute.evidence_details.submission_method: missing",
        "invoice.amount_overpaid: missing",
        "invoice.application_fee_amount: unknown",
        "invoice.charge: unknown",
        "invoice.discount: unknown",
        "invoice.issuer: missing",
        "invoice.lines.data[].amount_excluding_tax: unknown",
        "invoice.lines.data[].plan: unknown",
        "invoice.lines.data[].price: unknown",
        "invoice.lines.data[].proration: unknown",
        "invoice.lines.data[].proration_details: unknown",
        "invoice.lines.data[].subscription_item: unknown",
        "invoice.lines.data[].subtotal: missing",
        "invoice.lines.data[].tax_amounts: unknown",
        "invoice.lines.data[].tax_rates: unknown",
        "invoice.lines.data[].type: unknown",
        "invoice.lines.data[].unit_amount_excluding_tax: unknown",
        "invoice.lines.total_count: unknown",
        "invoice.paid: unknown",
        "invoice.paid_out_of_band: unknown",
        "invoice.payment_intent: unknown",
        "invoice.quote: unknown",
        "invoice.rendering_options: unknown",
        "invoice.subscription: unknown",
        "invoice.subscription_details: unknown",
        "invoice.tax: unknown",
        "invoice.total_tax_amounts: unknown",
        "invoice.transfer_data: unknown",
        "payment_intent.invoice: unknown",
    },
    "2025-03-31.basil": {
        'checkout.session.ui_mode: "hosted"',
        "dispute.balance_transactions[].balance_type: missing",
        "dispute.evidence_details.submission_method: missing",
        "dispute.payment_method_details.card.network: missing",
        "invoice.lines.data[].subtotal: missing",
        "invoice.lines.total_count: unknown",
    },
}

# Every kind of fault once: an event, a path in its object, the value at this path and the expected fault.
CORRUPTED = [
    ("checkout.session.completed", "surprise", 1, "unknown"),
    ("checkout.session.completed", "automatic_tax.surprise", None, "unknown"),
    ("checkout.session.completed", "mode", GONE, "missing"),
    ("checkout.session.completed", "automatic_tax.enabled", GONE, "missing"),
    ("checkout.session.completed", "expires_at", None, "null"),
    ("checkout.session.completed", "amount_total", "1000", '"1000"'),
    ("checkout.session.completed", "amount_total", 10.5, "10.5"),
    ("checkout.session.completed", "amount_total", True, "true"),
    ("checkout.session.completed", "livemode", 0, "0"),
    ("checkout.session.completed", "payment_status", "settled", '"settled"'),
    ("checkout.session.completed", "ui_mode", "hosted", '"hosted"'),
    ("checkout.session.completed", "metadata.credits", 100, "100"),
    ("checkout.session.completed", "metadata", [], "[]"),
    ("checkout.session.completed", "payment_method_types", "card", '"card"'),
    ("checkout.session.completed", "payment_intent", 3, "3"),
    ("checkout.session.completed", "total_details.amount_tax", "0", '"0"'),
    ("refund.created", "destination_details.card.type", "gift", '"gift"'),
    ("charge.dispute.created", "balance_transactions", None, "null"),
    ("invoice.paid", "lines.object", "array", '"array"'),
    ("invoice.paid", "lines.has_more", GONE, "missing"),
    ("invoice.paid", "lines.surprise", 1, "unknown"),
]


def faults(value: Any, hint: Any, at: str) -> list[str]:
    """Return each violation of the type hint in a piece of JSON, as "path: fault"."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Union:
        return union_faults(value, arguments, at)
    if origin is list and isinstance(value, list):
        return [fault for item in value for fault in faults(item, arguments[0], f"{at}[]")]
    if inspect.isclass(origin) and issubclass(origin, stripe.StripeObject) and isinstance(value, dict):
        return object_faults(value, fields_of(origin, *arguments, keys=value), at)
    return [] if is_a(value, origin, arguments) else [f"{at}: {json.dumps(value)}"]


def union_faults(value: Any, choices: tuple[Any, ...], at: str) -> list[str]:
    closed = any(typing.get_origin(choice) is typing.Literal for choice in choices)
    allowed = [choice for choice in choices if not (closed and choice is str)]  # the SDK leaves enums open
    return min((faults(value, choice, at) for choice in allowed), key=len)


def object_faults(value: dict[str, Any], fields: dict[str, Any], at: str) -> list[str]:
    unknown = [f"{at}.{key}: unknown" for key in value.keys() - fields.keys()]
    required = {key for key, hint in fields.items() if type(None) not in typing.get_args(hint)}
    missing = [f"{at}.{key}: missing" for key in required - value.keys()]
    known = value.keys() & fields.keys()
    return unknown + missing + [fault for key in known for fault in faults(value[key], fields[key], f"{at}.{key}")]


def is_a(value: Any, hint: Any, arguments: tuple[Any, ...]) -> bool:
    match hint:
        case typing.Any:
            return True
        case typing.Literal:
            return value in arguments
        case _ if hint is Decimal:
            return isinstance(value, str) and is_decimal(value)
        case _ if hint is float:
            return type(value) in {int, float}
        case _:
            return type(value) is hint  # not isinstance: a bool is an int


def is_decimal(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def fields_of(shape: type, *item: Any, keys: dict[str, Any]) -> dict[str, Any]:
    if shape is UntypedStripeObject:
        return dict.fromkeys(keys, item[0])
    if shape is stripe.ListObject:
        return {"object": typing.Literal["list"], "data": list[item], "has_more": bool, "url": str}
    return hints_of(shape)


@cache
def hints_of(shape: type) -> dict[str, Any]:
    hints = typing.get_type_hints(shape, localns=imports_of(shape.__module__))
    return {
        key: hint
        for key, hint in hints.items()
        if not key.startswith("_") and typing.get_origin(hint) is not typing.ClassVar
    }


@cache
def imports_of(module: str) -> dict[str, Any]:
    """Return a module's imports, including those for type checkers only, because its hints are strings."""
    nodes = ast.walk(ast.parse(inspect.getsource(sys.modules[module])))
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom) and ".params" not in node.module]
    names = [(source.module, name) for source in sources for name in source.names]
    return {name.asname or name.name: getattr(import_module(source), name.name) for source, name in names}


def object_in(event: dict[str, Any]) -> dict[str, Any]:
    return event["data"]["object"]


def object_faults_of(event: dict[str, Any]) -> list[str]:
    kind = object_in(event)["object"]
    return faults(object_in(event), SHAPES[kind], kind)


def corrupt(event: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place = reduce(getitem, parents, object_in(event))
    place[last] = value
    if value is GONE:
        del place[last]
    return event


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_recorded_envelope_matches_the_sdk_types(version: str, name: str) -> None:
    assert faults(recorded(name, version), stripe.Event, "event") == []


@pytest.mark.parametrize("name", NEW)
def test_recorded_object_of_the_newest_version_matches_the_sdk(name: str) -> None:
    assert object_faults_of(recorded(name)) == []


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_recorded_objects_of_an_older_version_differ_as_listed(version: str) -> None:
    found = [object_faults_of(recorded(name, version)) for found_in, name in EVERY if found_in == version]
    assert {fault for each in found for fault in each} == CHANGED_SINCE[version]


@pytest.mark.parametrize(("name", "path", "value", "fault"), CORRUPTED)
def test_checker_reports_a_corrupted_object(name: str, path: str, value: Any, fault: str) -> None:
    event = corrupt(recorded(name), path, value)
    assert object_faults_of(event) == [f"{object_in(event)['object']}.{path}: {fault}"]


def test_checker_reports_an_unknown_event_type() -> None:
    event = recorded("refund.created") | {"type": "refund.settled"}
    assert faults(event, stripe.Event, "event") == ['event.type: "refund.settled"']


def test_newest_recorded_version_is_the_one_the_sdk_pins() -> None:
    assert stripe.api_version == NEWEST


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_recorded_file_is_named_after_its_version_and_type(version: str, name: str) -> None:
    event = recorded(name, version)
    assert event["api_version"] == version
    assert f"{name}.".startswith(f"{event['type']}.")


def test_recorded_event_ids_are_unique() -> None:
    assert len({recorded(name, version)["id"] for version, name in EVERY}) == len(EVERY)


@pytest.mark.parametrize(("version", "name"), EVERY)
def test_recorded_event_contains_no_real_email_address(version: str, name: str) -> None:
    text = json.dumps(recorded(name, version))
    assert set(re.findall(r"[\w.+-]+@[\w.-]+", text)) <= {"buyer@example.com"}


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_sale_of_a_version_is_one_payment(version: str) -> None:
    """Session, PaymentIntent, refund and dispute have the same payment id."""
    sale = object_in(recorded("checkout.session.completed", version))["payment_intent"]
    assert object_in(recorded("payment_intent.succeeded", version))["id"] == sale
    assert object_in(recorded("charge.refund.updated", version))["payment_intent"] == sale
    assert object_in(recorded("charge.dispute.created", version))["payment_intent"] == sale


def test_recorded_event_is_a_new_copy_each_time() -> None:
    object_in(recorded("refund.created"))["amount"] = 1
    assert object_in(recorded("refund.created"))["amount"] == 1000


@pytest.mark.parametrize(
    "event",
    [
        session_event(event_id="evt_2", user_id=None, credits=7, amount=250, payment_status="unpaid"),
        payment_intent_event(event_id="evt_2", user_id=None, credits=7, amount=250, currency="eur"),
        refund_event(event_id="evt_2", id="re_2", amount=250, status="failed"),
        dispute_event(event_id="evt_2", id="du_2", amount=250, balance_transactions=[-250, 100, 50]),
    ],
    ids=lambda event: object_in(event)["object"],
)
def test_built_event_matches_the_sdk_types(event: dict[str, Any]) -> None:
    assert event["id"] == "evt_2"
    assert object_faults_of(event) == []


def test_built_session_for_another_user_has_no_recorded_user() -> None:
    assert USER_ID not in json.dumps(session_event(user_id="someone else"))


def test_built_session_without_user_and_credits_has_no_metadata() -> None:
    assert object_in(session_event(user_id=None, credits=None))["metadata"] == {}


def test_built_payment_intent_can_be_captured_in_part() -> None:
    """The amount and the amount received are separate."""
    intent = object_in(payment_intent_event(amount=900, amount_received=300))
    assert (intent["amount"], intent["amount_received"]) == (900, 300)


def test_built_dispute_has_the_given_balance_transactions() -> None:
    entries = object_in(dispute_event(balance_transactions=[-1000, 400]))["balance_transactions"]
    assert [(entry["amount"], entry["reporting_category"]) for entry in entries] == [
        (-1000, "dispute"),
        (400, "dispute_reversal"),
    ]


def test_builder_rejects_an_unknown_field() -> None:
    with pytest.raises(TypeError, match="payment_state"):
        session_event(payment_state="paid")


def test_signature_is_accepted_by_stripes_library() -> None:
    body = json.dumps(recorded("refund.created"), ensure_ascii=False).encode()
    assert stripe.WebhookSignature.verify_header(body, sign(body, SECRET), SECRET, 300)


def test_signature_of_a_body_that_is_not_utf8_covers_its_bytes() -> None:
    signature = sign(b"\xff", SECRET, 1).partition(",v1=")[2]
    assert signature == hmac.new(SECRET.encode(), b"1.\xff", "sha256").hexdigest()
