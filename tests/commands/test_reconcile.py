"""``webhook reconcile`` finds what the webhooks missed, and records it as the worker would have."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.model import new_id
from support.project import DOCS
from support.reconciliation import (
    INVOICE,
    LINK,
    PAYMENT,
    SESSION,
    days_ago,
    paid_session,
    priced_session,
    unpaid_session,
)
from support.recorded import (
    dispute_event,
    invoice_event,
    invoice_payment_event,
    payment_intent_event,
    refund_event,
    session_event,
)
from support.shop import Shop
from webhook.reconcile.pages import Page, Source
from webhook.reconcile.progress import Progress

# Missing objects


def test_sale_without_a_webhook_is_granted(shop: Shop) -> None:
    """The first run reports the sale and exits with 1; for the second, nothing is missing."""
    shop.stripe.add_events(session_event())
    first, second = shop.reconcile("--since", "1d"), shop.reconcile("--since", "1d")
    assert first.stdout.splitlines()[0] == f"missing\tcheckout.session\t{SESSION}\t+100\t{PAYMENT}"
    assert "1 missing, now recorded: +100 credits." in first.stdout
    assert "Nothing is missing." in second.stdout
    assert (first.exit_code, second.exit_code, shop.balance()) == (1, 0, 100)


def test_objects_of_every_kind_are_recorded(shop: Shop) -> None:
    """They are a PaymentIntent and its dispute, and an invoice with its payment and a refund."""
    intent = payment_intent_event(id="pi_own", credits=50, amount=1000)
    invoice = invoice_event(id="in_1", credits=30, amount_paid=900)
    link = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_of_invoice")
    refund = refund_event(id="re_1", payment_intent="pi_of_invoice", amount=300)
    dispute = dispute_event(id="du_1", payment_intent="pi_own", amount=1000, balance_transactions=[-1000])
    shop.stripe.add_events(intent, invoice, link, refund, dispute)
    found = shop.missing("--since", "1d")
    assert found.keys() == {"pi_own", "in_1", "inpay_1", "re_1", "du_1"}
    assert (shop.balance(), sum(found.values())) == (20, 20)
    assert not shop.missing("--since", "1d")


def test_old_refund_that_failed_gives_its_credits_back(shop: Shop) -> None:
    """It was created before the window, and no event shows the failure."""
    sold, refunded = session_event(), refund_event(payment_intent=PAYMENT)
    refund_id = refunded["data"]["object"]["id"]
    shop.deliver(sold, refunded)
    before = shop.balance()
    shop.stripe.add_events(refund_event("refund.failed", id=refund_id, payment_intent=PAYMENT), at=days_ago(20))
    shop.stripe.delete_events()
    assert shop.missing("--since", "2d") == {refund_id: 100 - before}
    assert shop.balance() == 100


def test_old_dispute_that_was_won_gives_its_credits_back(shop: Shop) -> None:
    """Disputes are listed from 180 days before the window."""
    shop.deliver(session_event(), dispute_event(id="du_1", payment_intent=PAYMENT))
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.add_events(won, at=days_ago(150))
    shop.stripe.delete_events()
    shop.found("--since", "2d")
    assert shop.balance() == 100


def test_open_dispute_of_any_age_in_the_ledger_is_looked_up(shop: Shop) -> None:
    """Neither a list nor an event contains this dispute."""
    shop.deliver(session_event(), dispute_event(id="du_1", payment_intent=PAYMENT, status="under_review"))
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.add_events(won, at=days_ago(400))
    shop.stripe.delete_events()
    shop.found("--since", "2d")
    assert shop.balance() == 100


def test_old_invoice_paid_in_the_window_is_granted(shop: Shop) -> None:
    """The invoice has its time of payment, so no event is needed."""
    shop.stripe.add_events(invoice_event(id="in_1", credits=30), at=days_ago(1), created=days_ago(60))
    shop.stripe.delete_events()
    assert shop.missing("--since", "2d") == {"in_1": 30}


def test_bank_debit_unknown_to_the_ledger_is_found_by_its_event(shop: Shop) -> None:
    """The session was created before the window."""
    shop.stripe.add_events(paid_session(), at=days_ago(1), created=days_ago(12))
    assert list(shop.missing("--since", "2d").values()) == [100]


@pytest.mark.parametrize("age", [12, 100])
def test_bank_debit_open_in_the_ledger_needs_no_event(shop: Shop, age: int) -> None:
    """Its session is looked up by the payment."""
    shop.deliver(unpaid_session())
    shop.stripe.add_events(paid_session(), at=days_ago(age))
    shop.stripe.delete_events()
    assert list(shop.missing("--since", "2d").values()) == [100]


def test_manual_capture_of_a_known_session_needs_no_event(shop: Shop) -> None:
    """Only the PaymentIntent shows the capture."""
    shop.deliver(unpaid_session())
    shop.stripe.add_events(unpaid_session(), at=days_ago(50))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.add_events(captured, at=days_ago(50))
    shop.stripe.delete_events()
    assert list(shop.missing("--since", "2d").values()) == [100]


def test_manual_capture_of_an_old_session_is_found_by_its_event(shop: Shop) -> None:
    """The ledger has neither object; one run grants the sale, in any order of the lists."""
    shop.stripe.add_events(unpaid_session(), at=days_ago(5))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.add_events(captured, at=days_ago(1))
    shop.found("--since", "2d")
    assert shop.balance() == 100
    assert shop.found("--since", "2d")["exit_code"] == 0


def test_sale_granted_twice_for_lack_of_a_link_is_corrected(shop: Shop) -> None:
    """Invoice and payment both granted the credits; the run finds their link and takes one grant back."""
    intent = payment_intent_event(id="pi_of_invoice", credits=30)
    invoice = invoice_event(id="in_1", credits=30)
    shop.stripe.add_events(intent, invoice, invoice_payment_event(invoice="in_1", payment_intent="pi_of_invoice"))
    shop.deliver(intent, invoice)
    assert shop.balance() == 60
    shop.reconcile("--since", "1d")
    assert shop.balance() == 30


def test_invoice_with_twelve_payments_is_linked_to_all(shop: Shop) -> None:
    """The invoice contains ten of them; the run requests the others."""
    links = [
        invoice_payment_event(event_id=new_id("evt"), id=f"inpay_{n}", invoice="in_1", payment_intent=f"pi_{n}")
        for n in range(12)
    ]
    shop.stripe.add_events(invoice_event(id="in_1", credits=30), *links)
    shop.found("--since", "1d")
    assert shop.admin.execute("select from billing.payment_links where invoice_id = 'in_1'").rowcount == 12


@pytest.mark.parametrize(
    "reversal",
    [
        refund_event(payment_intent="pi_of_invoice", amount=900),
        dispute_event(payment_intent="pi_of_invoice", amount=900, balance_transactions=[-900]),
    ],
    ids=["refund", "dispute"],
)
@pytest.mark.parametrize("delivered", [True, False])
def test_reversal_of_an_old_invoice_finds_its_missing_link(
    shop: Shop, reversal: dict[str, Any], *, delivered: bool
) -> None:
    """It is looked up by the payment, as the list of invoices does not go back that far."""
    shop.deliver(INVOICE, *[reversal] * delivered)
    shop.stripe.add_events(INVOICE, LINK, at=days_ago(300))
    shop.stripe.delete_events()
    shop.stripe.add_events(reversal)
    assert shop.missing("--since", "2d")["inpay_1"] == -30
    assert shop.balance() == 0
    assert shop.found("--since", "2d")["exit_code"] == 0


def test_refund_of_an_unknown_invoice_adds_no_link(shop: Shop) -> None:
    """The run looks for a link, and reports only the refund."""
    shop.stripe.add_events(INVOICE, LINK, at=days_ago(300))
    shop.stripe.delete_events()
    shop.stripe.add_events(refund_event(id="re_1", payment_intent="pi_of_invoice"))
    assert shop.missing("--since", "2d") == {"re_1": 0}
    assert shop.admin.execute("select from billing.payment_links").rowcount == 0


def test_links_are_looked_up_only_for_new_refunds_without_a_sale(shop: Shop) -> None:
    """Refunds of known sales and from before the window cost no request."""
    unknown = [refund_event(event_id=new_id("evt"), id=f"re_{n}", payment_intent=f"pi_{n}") for n in (1, 2)]
    shop.deliver(session_event(), refund_event(payment_intent=PAYMENT), *unknown)
    shop.admin.execute(
        "update billing.reversals set recorded_at = now() - interval '3 days' where reversal_id = 're_2'"
    )
    shop.found("--since", "2d")
    links = [query["payment[payment_intent]"] for path, query in shop.stripe.requests if path == "/v1/invoice_payments"]
    assert links == ["pi_1"]


def test_credits_of_a_price_come_from_the_expanded_line_items(shop: Shop) -> None:
    """The list contains them, so no session needs its own request."""
    price = {"id": "price_1", "object": "price", "metadata": {"credits": "40"}, "product": "prod_1"}
    line = {"id": "li_1", "object": "item", "quantity": 2, "price": price, "amount_total": 1000}
    sold = session_event(credits=None)
    sold["data"]["object"]["line_items"] = {"object": "list", "data": [line], "has_more": False}
    shop.stripe.add_events(sold)
    assert list(shop.missing("--since", "1d").values()) == [80]
    assert not [path for path, _ in shop.stripe.requests if "line_items" in path]


def test_price_changed_after_a_sale_grants_nothing_more(shop: Shop) -> None:
    """Otherwise a new price would grant every sale of the last 35 days again."""
    shop.stripe.add_events(priced_session(40))
    assert shop.missing("--since", "1d") == {SESSION: 40}
    shop.stripe.add_events(priced_session(60))
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.balance() == 40


def test_price_changed_before_a_debit_grants_the_old_credits(shop: Shop) -> None:
    """The credits were recorded when the session was not paid yet."""
    unpaid, paid = priced_session(40), priced_session(60)
    unpaid["data"]["object"]["payment_status"] = "unpaid"
    shop.stripe.add_events(unpaid)
    shop.found("--since", "1d")
    shop.stripe.add_events(paid)
    assert shop.missing("--since", "1d") == {SESSION: 40}
    assert shop.balance() == 40


def test_metadata_with_more_credits_after_a_sale_is_recorded(shop: Shop) -> None:
    """An operator changed the object itself; fewer credits are not recorded."""
    shop.deliver(session_event())
    shop.stripe.add_events(session_event(credits=150))
    assert (shop.missing("--since", "1d"), shop.balance()) == ({SESSION: 50}, 150)
    shop.stripe.add_events(session_event(credits=50))
    assert shop.found("--since", "1d")["exit_code"] == 0


def test_connected_account_is_read_only_with_stripe_account(shop: Shop) -> None:
    """Its requests have the Stripe-Account header."""
    shop.stripe.account = "acct_1"
    shop.stripe.add_events(session_event())
    assert not shop.missing("--since", "1d")
    result = shop.reconcile("--since", "1d", STRIPE_ACCOUNT="acct_1")
    assert (result.exit_code, shop.balance()) == (1, 100)


# Dry runs, and objects already recorded


def test_dry_run_reports_the_same_and_changes_nothing(shop: Shop) -> None:
    """It reports a sale, a refund, and a session that cannot be settled."""
    refund = refund_event(payment_intent=PAYMENT)
    nameless = session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", credits=None)
    shop.stripe.add_events(session_event(), refund, nameless)
    before = shop.contents()
    found = shop.found("--since", "1d", "--dry-run")
    assert shop.contents() == before
    assert shop.admin.execute("select from billing.reconciliations").rowcount == 0
    assert {each["id"]: each["status"] for each in found["items"]} == {
        SESSION: "missing",
        refund["data"]["object"]["id"]: "missing",
        "cs_2": "parked",
    }
    assert found["exit_code"] == 1
    assert "would be recorded (dry run)" in shop.reconcile("--since", "1d", "--dry-run").stdout


def test_dry_run_reports_only_what_a_run_would_park(shop: Shop) -> None:
    """A payment with invalid credits is not parked if its session is settled."""
    shop.deliver(session_event())
    shop.stripe.add_events(session_event(), payment_intent_event(id=PAYMENT, credits="lots"))
    assert shop.found("--since", "1d", "--dry-run")["exit_code"] == 0
    assert shop.found("--since", "1d")["exit_code"] == 0


def test_delivered_events_are_not_missing(shop: Shop) -> None:
    events = [session_event(), refund_event(payment_intent=PAYMENT)]
    shop.stripe.add_events(*events)
    shop.deliver(*events)
    before = shop.contents()
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.contents() == before


def test_listed_objects_are_not_fetched_again_for_their_events(shop: Shop) -> None:
    """A run makes one request per list, and none per object."""
    invoice = invoice_event(id="in_1", billing_reason="subscription_cycle")
    reversals = [refund_event(payment_intent=PAYMENT), dispute_event(payment_intent=PAYMENT)]
    shop.stripe.add_events(session_event(), *reversals, invoice)
    assert shop.found("--since", "1d")["requests"] == len(shop.stripe.requests) == 11


# Progress


def test_progress_bar_shows_percentage_objects_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The percentage is that of the time that the lists have covered."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with open(reader, "rb", buffering=0) as screen, open(writer, "w", encoding="utf-8") as terminal:  # noqa: PTH123 - descriptors
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress()
        progress.begin([Source("refunds", "a permission", lambda: iter(()), 0, 1000)])
        progress.read(Page("refunds", [], size=100, reached=500))
        progress.close()
        terminal.close()
        shown = b""
        with suppress(OSError):  # at the end of the output
            while piece := screen.read(10_000):
                shown += piece
    assert b" 50%|" in shown
    assert b"| 100 objects, " in shown


# The nightly run


def test_clock_process_retries_hourly_and_reconciles_nightly(tmp_path: Path) -> None:
    """The line in docs/how-to/reconcile.md runs with a fast clock, from 02:00 to 03:00."""
    page = (DOCS / "how-to" / "reconcile.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^clock: (.+)$", page, re.MULTILINE)
    programs = {
        "sleep": 'n=$(cat hours 2>/dev/null || echo 1); echo $((n + 1)) > hours; test "$n" -lt 3',
        "date": 'printf "0%s" "$(cat hours)"',
        "webhook": 'echo "$@" >> calls',
    }
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}"}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, timeout=20, check=False)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls == ["retry", "retry", "reconcile --since 2d --until 5m"]
