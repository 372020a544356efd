"""``webhook reconcile`` and ``webhook audit --stripe`` judge invoices of subscriptions as the worker does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from support.invoices import DAY, Line, Plan, subscription_invoice
from support.model import new_id
from support.shop import Shop

NOW = 1_768_435_200  # 2026-01-15 00:00 UTC
MONTHLY = Plan("price_monthly", 1000, 100)
YEARLY = Plan("price_yearly", 9600, 1200, months=12)
USAGE = Plan("price_usage", 50, 50, usage_type="metered")
MONTH = Line(MONTHLY, 1000, NOW, NOW + 31 * DAY)
YEAR = Line(YEARLY, 9600, NOW, NOW + 365 * DAY)
UNUSED = replace(MONTH, amount=-500, proration=True)
TRIAL = replace(MONTH, amount=0, description="Trial period for Credits plan")
FEE = Line(None, 700, NOW, NOW)
USED = Line(USAGE, 35_000, NOW - 30 * DAY, NOW, quantity=700)

Event = dict[str, Any]


def invoice(name: str, *lines: Line, **fields: Any) -> Event:
    return subscription_invoice(*lines, **{"created": NOW, "id": f"in_{name}"} | fields) | {"id": new_id("evt")}


GRANTED = {
    "in_upgrade": 1200 * 91 // 96,
    "in_free_to_paid": 100,
    "in_trial_ended": 100,
    "in_part": 32,
    "in_partly_paid": 60,
}
EVENTS = [
    invoice("upgrade", UNUSED, YEAR, reason="subscription_update", credits=1200),
    invoice("free_to_paid", replace(MONTH, amount=0, proration=True), MONTH, reason="subscription_update", credits=100),
    invoice("trial_ended", MONTH, reason="subscription_update", credits=100),
    invoice("part", Line(MONTHLY, 323, NOW, NOW + 10 * DAY), reason="subscription_create", credits=100),
    invoice("partly_paid", MONTH, credits=100, balance=-400),
    invoice("used", USED),
    invoice("trial", FEE, TRIAL, reason="subscription_create", credits=100),
    invoice("downgrade", replace(UNUSED, amount=-9600), MONTH, credits=100, ending_balance=-8600),
    invoice("credit_note", MONTH, credits=100, balance=-1000),
    invoice("seats", UNUSED, replace(UNUSED, amount=800), reason="subscription_update", credits=100),
]
IGNORED = {"paid_by_credit": 2, "proration": 1, "trial": 1, "usage": 1}


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """A shop whose prices are known at Stripe."""
    for plan in (MONTHLY, YEARLY, USAGE):
        shop.stripe.objects[plan.price_id] = plan.price()
    return shop


def audited(shop: Shop) -> list[tuple[str, Any, Any]]:
    found = [json.loads(line) for line in shop.run("audit", "--stripe", "--json").stdout.splitlines()]
    return [(each["payment_id"], each["expected"], each["found"]) for each in found if each["check"] == "stripe"]


def test_missed_invoices_are_granted_as_the_worker_would(shop: Shop) -> None:
    shop.stripe.add_events(*EVENTS)
    found = shop.found("--since", "1d")
    assert {item["id"]: item["credits"] for item in found["items"]} == GRANTED
    assert found["ignored_invoices"] == IGNORED
    assert shop.balance() == sum(GRANTED.values())


def test_delivered_invoices_are_not_missing(shop: Shop) -> None:
    others = [event for event in EVENTS if event["data"]["object"]["id"] != "in_part"]
    shop.stripe.add_events(*others)
    shop.deliver(*(shop.stripe.objects[event["id"]] for event in others))
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["items"], found["ignored_invoices"]) == (0, [], IGNORED)


def test_report_names_why_invoices_grant_nothing(shop: Shop) -> None:
    shop.stripe.add_events(*EVENTS[-2:])
    lines = shop.reconcile("--since", "1d").stdout.splitlines()
    assert "2 invoices skipped, because they grant nothing: 1 paid_by_credit, 1 proration." in lines
    assert "Nothing is missing." in lines


def test_audit_accepts_what_the_invoices_grant(shop: Shop) -> None:
    shop.stripe.add_events(*EVENTS)
    shop.found("--since", "1d")
    assert audited(shop) == []


def test_audit_reports_an_invoice_that_granted_too_much(shop: Shop) -> None:
    """The ledger has credits that the invoice at Stripe does not grant."""
    shop.stripe.add_events(*EVENTS)
    for name in ("upgrade", "downgrade"):
        shop.deliver(invoice(name, YEAR, credits=1200, amount_paid=0 if name == "downgrade" else 9100))
    assert sorted(audited(shop)) == [("in_downgrade", 0, 1200), ("in_upgrade", GRANTED["in_upgrade"], 1200)]


def test_audit_without_price_permission_skips_doubtful_parts(shop: Shop) -> None:
    shop.stripe.add_events(*EVENTS)
    shop.found("--since", "1d")
    shop.stripe.error_status = lambda path, _: 403 if path.startswith("/v1/prices") else None
    assert audited(shop) == []
