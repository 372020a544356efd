"""``webhook audit --stripe`` reports each payment whose money differs from Stripe's."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from click.testing import Result

from support.commands import invoke
from support.databases import Database
from support.delivery import deliver_to
from support.recorded import USER_ID, dispute_event, invoice_event, invoice_payment_event, refund_event, session_event
from support.stripe_stand_in import StripeStandIn
from webhook.ledger.ledger import Ledger
from webhook.settings import SettingsError
from webhook.stripe_api import bulk as stripe_reader

Audit = Callable[..., Result]
Admin = psycopg.Connection[Any]
Deliver = Callable[..., None]

PAYMENT = session_event()["data"]["object"]["payment_intent"]
SOLD = session_event(amount=1000)
REFUNDED = refund_event(payment_intent=PAYMENT, amount=250)
DISPUTED = dispute_event(payment_intent=PAYMENT, amount=400, balance_transactions=[-400])
INVOICE = invoice_event(id="in_1", amount_paid=900)
LINK = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_invoice")


@pytest.fixture
def stripe(stripe: StripeStandIn) -> StripeStandIn:
    """An account with a sale, its refund and dispute, and a paid invoice."""
    stripe.add_events(SOLD, REFUNDED, DISPUTED, INVOICE, LINK)
    charge = {"object": "charge", "created": 1, "amount_refunded": 250, "disputed": True}
    stripe.objects["ch_1"] = charge | {"id": "ch_1"}
    stripe.objects["ch_2"] = charge | {"id": "ch_2", "amount_refunded": 0, "disputed": False}
    stripe.objects[PAYMENT] |= {"amount_received": 1000, "latest_charge": "ch_1"}
    stripe.objects["pi_invoice"] |= {"amount_received": 900, "latest_charge": "ch_2"}
    return stripe


@pytest.fixture
def deliver(ledger: Ledger, buyer: str) -> Deliver:
    """Deliver events to the worker."""
    assert buyer

    def deliver(*events: dict[str, Any]) -> None:
        for event in events:
            deliver_to(ledger, event)

    return deliver


@pytest.fixture
def audit(database: Database, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("STRIPE_API_KEY", "rk_test_1")
    monkeypatch.setenv("STRIPE_API_BASE", stripe.url)
    return partial(invoke, "audit")


def test_audit_of_payments_that_match_stripe_finds_nothing(audit: Audit, deliver: Deliver) -> None:
    """They are a sale with a refund and a dispute, and an invoice with its payment."""
    deliver(SOLD, REFUNDED, DISPUTED, INVOICE, LINK)
    result = audit("--stripe")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        (REFUNDED, f"stripe: payment {PAYMENT}: money refunded, in minor units: expected 250, found 0"),
        (DISPUTED, f"stripe: payment {PAYMENT}: money disputed, in minor units: expected 400, found 0"),
    ],
    ids=["refund", "dispute"],
)
def test_audit_reports_a_reversal_missing_from_the_ledger(
    audit: Audit, deliver: Deliver, lost: dict[str, Any], line: str
) -> None:
    """Its webhook was never delivered."""
    deliver(*(event for event in (SOLD, REFUNDED, DISPUTED, INVOICE, LINK) if event is not lost))
    result = audit("--stripe")
    assert (result.exit_code, result.stdout.splitlines()) == (1, [line])


def test_audit_reports_an_unlinked_payment_of_an_invoice(audit: Audit, deliver: Deliver, stripe: StripeStandIn) -> None:
    """Without the link, refunds of the payment take no credits; payments after the tenth are checked too."""
    deliver(SOLD, REFUNDED, DISPUTED, INVOICE)
    lines = ["stripe: payment in_1: a payment of the invoice is not linked to it: expected pi_invoice, found nothing"]
    assert audit("--stripe").stdout.splitlines() == lines
    deliver(LINK)
    for number in range(10):
        stripe.objects[f"inpay_a{number}"] = stripe.objects["inpay_1"] | {"id": f"inpay_a{number}"}
    last = stripe.objects["inpay_1"]["payment"] | {"payment_intent": "pi_last"}
    stripe.objects["inpay_last"] = stripe.objects["inpay_1"] | {"id": "inpay_last", "payment": last}
    assert "a payment of the invoice is not linked to it: expected pi_last, found nothing" in audit("--stripe").stdout


def test_audit_ignores_a_malformed_entry_in_the_dispute_list(
    audit: Audit, deliver: Deliver, stripe: StripeStandIn
) -> None:
    """The valid disputes of the list still count."""
    deliver(SOLD, REFUNDED, DISPUTED, INVOICE, LINK)
    listed = stripe._list  # noqa: SLF001 - to corrupt its answer

    def odd(every: list[Any], path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        status, body = listed(every, path, query)
        return status, body | {"data": ["odd", *body["data"]]} if path == "/v1/disputes" else body

    stripe._list = odd  # type: ignore[method-assign] # noqa: SLF001
    assert audit("--stripe").exit_code == 0


def test_audit_reports_a_refund_unknown_to_stripe(audit: Audit, deliver: Deliver) -> None:
    """It failed, and the webhook of the failure was never delivered."""
    deliver(SOLD, REFUNDED, DISPUTED, refund_event(event_id="evt_2", id="re_2", payment_intent=PAYMENT, amount=100))
    assert "money refunded, in minor units: expected 250, found 350" in audit("--stripe").stdout


def test_audit_reports_wrong_amounts_of_payments_and_invoices(
    audit: Audit, deliver: Deliver, stripe: StripeStandIn
) -> None:
    """The expected amount is Stripe's, the found one is the ledger's."""
    deliver(SOLD, REFUNDED, DISPUTED, INVOICE, LINK)
    stripe.objects[PAYMENT]["amount_received"] = 999
    stripe.objects["in_1"]["amount_paid"] = 800
    found = [json.loads(line) for line in audit("--stripe", "--json").stdout.splitlines()]
    assert [(each["payment_id"], each["expected"], each["found"]) for each in found] == [
        (PAYMENT, 999, 1000),
        ("in_1", 800, 900),
    ]


def test_audit_reports_a_paid_payment_recorded_as_unpaid(audit: Audit, deliver: Deliver) -> None:
    """A bank debit succeeded, and its webhook was never delivered."""
    deliver(session_event("checkout.session.completed.unpaid", payment_intent=PAYMENT, amount=1000))
    assert f"payment {PAYMENT}: money paid, in minor units: expected 1000, found 0" in audit("--stripe").stdout


def test_audit_ignores_payments_unknown_to_the_ledger(audit: Audit, deliver: Deliver) -> None:
    """They do not sell credits, or reconciliation finds them."""
    deliver(REFUNDED)
    assert audit("--stripe").exit_code == 0


def test_audit_checks_only_payments_between_since_and_until(audit: Audit, deliver: Deliver) -> None:
    deliver(SOLD)
    assert audit("--stripe", "--since", "3d", "--until", "1d").exit_code == 0
    assert audit("--stripe", "--since", "3d").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--since", "3d"], {}, "--since and --until go with --stripe"),
        (["--stripe"], {"STRIPE_API_KEY": ""}, "STRIPE_API_KEY is not set"),
    ],
)
def test_audit_with_wrong_options_or_settings_names_them(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        text = audit(*arguments).stderr
    except SettingsError as error:
        text = str(error)
    assert message in text


def test_audit_without_a_stripe_permission_exits_with_2(
    audit: Audit, deliver: Deliver, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the missing permission."""
    monkeypatch.setattr(stripe_reader, "_RETRY_SECONDS", 0.1)
    deliver(SOLD)
    stripe.error_status = lambda path, _: 403 if path == "/v1/payment_intents" else None
    result = audit("--stripe")
    assert result.exit_code == 2
    assert "add PaymentIntents: Read" in result.stderr
    assert audit("--stripe", "--json").stdout == ""


@pytest.mark.parametrize("payment", ["pi_made_up", "in_made_up", "cs_made_up", "made_up"])
def test_audit_reports_a_sale_unknown_to_stripe(audit: Audit, deliver: Deliver, admin: Admin, payment: str) -> None:
    """The row was forged, by hand or with a leaked signing secret."""
    deliver(SOLD, REFUNDED, DISPUTED)
    admin.execute(
        "insert into public.transactions"
        " (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)"
        " values (%s, 5, 'PURCHASE', %s, %s, 1, 'usd', 'evt_made_up')",
        [USER_ID, payment, payment],
    )
    lines = audit("--stripe").stdout.splitlines()
    assert f"stripe: payment {payment}: a sale that Stripe does not know: expected nothing, found {payment}" in lines
    assert len([line for line in lines if line.startswith("stripe:")]) == 1


def test_audit_with_a_404_of_another_server_exits_with_2(
    audit: Audit, deliver: Deliver, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STRIPE_API_BASE may be wrong, so no sale is reported as unknown to Stripe."""
    monkeypatch.setattr(stripe_reader, "_RETRY_SECONDS", 0.1)
    stripe.objects[PAYMENT]["created"] = 1
    deliver(SOLD, REFUNDED, DISPUTED)
    stripe.error_status = lambda path, _: 404 if path.startswith("/v1/payment_intents/") else None
    result = audit("--stripe")
    assert (result.exit_code, result.stdout) == (2, "")


def test_audit_of_an_older_payment_looks_it_up_at_stripe(audit: Audit, deliver: Deliver, stripe: StripeStandIn) -> None:
    """It was created before the window and paid in it, so the sale is not forged."""
    stripe.objects[PAYMENT]["created"] = 1
    deliver(SOLD, REFUNDED, DISPUTED)
    assert audit("--stripe").exit_code == 0
