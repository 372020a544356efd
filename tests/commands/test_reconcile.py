"""``webhook reconcile`` finds what the webhooks missed, and records it as the worker would have."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from support.databases import Database
from support.model import new_id
from support.project import DOCS
from support.recorded import (
    USER_ID,
    dispute_event,
    invoice_event,
    invoice_payment_event,
    payment_intent_event,
    refund_event,
    session_event,
)
from support.shop import Shop, opened
from support.stripe_stand_in import DAY, StripeStandIn
from webhook import cli
from webhook.reconcile import recorder
from webhook.reconcile.pages import Page, Source
from webhook.reconcile.progress import Progress
from webhook.settings import SettingsError
from webhook.stripe_api import bulk as stripe_reader

PAYMENT = session_event()["data"]["object"]["payment_intent"]
SESSION = session_event()["data"]["object"]["id"]


@pytest.fixture
def shop(database: Database, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(stripe_reader, "_MAX_BACKOFF", 0.05)
    with opened(database, stripe) as shop:
        shop.sign_up(USER_ID)
        yield shop


def days_ago(days: float) -> int:
    return int(time.time() - days * DAY)


def unpaid_session(**fields: Any) -> dict[str, Any]:
    return session_event("checkout.session.completed.unpaid", event_id=new_id("evt"), payment_intent=PAYMENT, **fields)


def paid_session(**fields: Any) -> dict[str, Any]:
    """Return the same session after its bank debit succeeded."""
    name = "checkout.session.async_payment_succeeded"
    source = unpaid_session()["data"]["object"]
    return session_event(name, event_id=new_id("evt"), id=source["id"], payment_intent=PAYMENT, **fields)


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


INVOICE = invoice_event(id="in_1", credits=30, amount_paid=900)
LINK = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_of_invoice")


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


def priced_session(per_item: int | None) -> dict[str, Any]:
    """Return a session whose price has the credits, or leaves them to the product if ``per_item`` is None."""
    metadata = {} if per_item is None else {"credits": str(per_item)}
    price = {"id": "price_1", "object": "price", "metadata": metadata, "product": "prod_1"}
    line = {"id": "li_1", "object": "item", "quantity": 1, "price": price, "amount_total": 1000}
    sold = session_event(credits=None)
    sold["data"]["object"]["line_items"] = {"object": "list", "data": [line], "has_more": False}
    return sold


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


# How far back


def paid_by_card(shop: Shop, at: float) -> None:
    """Add the charge of the session's payment, which has the time of payment."""
    shop.stripe.objects["ch_1"] = {"id": "ch_1", "object": "charge", "created": int(at)}
    shop.stripe.objects[PAYMENT] |= {"latest_charge": "ch_1"}


def late_session(shop: Shop, created: int) -> None:
    shop.stripe.add_events(session_event(), at=created)
    paid_by_card(shop, days_ago(1))


def late_payment(shop: Shop, created: int) -> None:
    shop.stripe.add_events(payment_intent_event(id=PAYMENT), at=created)
    paid_by_card(shop, days_ago(1))


def late_invoice(shop: Shop, created: int) -> None:
    shop.stripe.add_events(invoice_event(id="in_1", credits=100), at=days_ago(1), created=created)


def failed_refund(shop: Shop, created: int) -> None:
    shop.deliver(session_event(amount=1000), refund_event(id="re_1", payment_intent=PAYMENT, amount=1000))
    shop.stripe.add_events(refund_event("refund.failed", id="re_1", payment_intent=PAYMENT), at=created)


def won_dispute(shop: Shop, created: int) -> None:
    lost = dispute_event("charge.dispute.closed.lost", id="du_1", payment_intent=PAYMENT, amount=1000)
    shop.deliver(session_event(amount=1000), lost)
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.add_events(won, at=created)


@pytest.mark.parametrize(
    ("arrange", "days"),
    [(late_session, 35), (late_payment, 35), (late_invoice, 180), (failed_refund, 35), (won_dispute, 180)],
)
def test_object_is_listed_as_long_as_its_kind_can_change(
    shop: Shop, arrange: Callable[[Shop, int], None], days: int
) -> None:
    """A change to an object from up to ``days`` before the window is found without an event."""
    arrange(shop, days_ago(2 + days - 0.1))
    shop.stripe.delete_events()
    before = shop.balance()
    shop.found("--since", "2d")
    assert (before, shop.balance()) == (0, 100)


@pytest.mark.parametrize(
    ("arrange", "days"),
    [(late_session, 35), (late_payment, 35), (late_invoice, 180), (failed_refund, 35), (won_dispute, 180)],
)
def test_object_too_old_to_change_is_not_listed(shop: Shop, arrange: Callable[[Shop, int], None], days: int) -> None:
    """Listing it would cost requests every night."""
    arrange(shop, days_ago(2 + days + 0.1))
    shop.stripe.delete_events()
    assert shop.found("--since", "2d")["counts"]["missing"] == 0


@pytest.mark.parametrize(("age", "looked_up"), [(181.9, True), (182.1, False)])
def test_open_sale_is_looked_up_for_half_a_year(shop: Shop, age: float, *, looked_up: bool) -> None:
    """The half year begins when the sale is recorded."""
    shop.deliver(unpaid_session())
    shop.admin.execute("update billing.sales set recorded_at = to_timestamp(%s)", [days_ago(age)])
    shop.found("--since", "2d")
    assert any(query.get("payment_intent") == PAYMENT for _, query in shop.stripe.requests) == looked_up


def test_events_are_listed_for_the_30_days_stripe_keeps_them(shop: Shop) -> None:
    """Only the other lists can contain an older change."""
    shop.stripe.add_events(paid_session(), at=days_ago(40), created=days_ago(200))
    shop.stripe.objects.pop(PAYMENT)
    assert not shop.missing("--since", "60d")
    [since] = [int(query["created[gte]"]) for path, query in shop.stripe.requests if path == "/v1/events"]
    assert since == pytest.approx(days_ago(30), abs=60)


def test_object_of_many_events_is_fetched_once(shop: Shop) -> None:
    """The events are on two pages."""
    for number in range(102):
        paid = session_event(event_id=f"evt_{number}")
        shop.stripe.add_events(paid, at=days_ago(1) - number, created=days_ago(100))
    assert shop.missing("--since", "2d") == {SESSION: 100}
    assert [path for path, _ in shop.stripe.requests].count(f"/v1/checkout/sessions/{SESSION}") == 1


def test_link_of_an_old_invoice_is_found_by_its_event(shop: Shop) -> None:
    """A link never changes, so the run does not fetch it."""
    shop.deliver(INVOICE)
    shop.stripe.add_events(LINK, at=days_ago(1), created=days_ago(300))
    assert list(shop.missing("--since", "2d")) == ["inpay_1"]


def test_link_of_an_old_invoice_needs_the_invoice_in_the_ledger(shop: Shop) -> None:
    """The list contains the link, but the invoice is from before the window."""
    shop.stripe.add_events(INVOICE, LINK, at=days_ago(10))
    shop.stripe.delete_events()
    assert not shop.missing("--since", "2d")
    assert shop.admin.execute("select from billing.payment_links").rowcount == 0
    shop.deliver(INVOICE)
    assert list(shop.missing("--since", "2d")) == ["inpay_1"]


@pytest.mark.parametrize(
    "event",
    [
        refund_event(payment_intent=PAYMENT),
        dispute_event(payment_intent=PAYMENT),
        session_event("checkout.session.completed.subscription", customer="cus_1"),
    ],
    ids=["refund", "dispute", "customer of a user"],
)
def test_object_that_grants_nothing_counts_before_the_window(shop: Shop, event: dict[str, Any]) -> None:
    """Its sale is not known yet, and may arrive later."""
    shop.stripe.add_events(event, at=days_ago(10))
    assert list(shop.missing("--since", "2d")) == [event["data"]["object"]["id"]]


def test_run_over_an_earlier_time_keeps_the_end_of_the_latest(shop: Shop) -> None:
    """The next run without ``--since`` begins there."""
    shop.reconcile("--since", "9d", "--until", "2d")
    covered = shop.ledger.covered_until()
    shop.reconcile("--since", "9d", "--until", "5d")
    assert shop.ledger.covered_until() == covered


def test_object_with_a_rejected_lookup_fails_alone(shop: Shop) -> None:
    """A 400 is a permanent error, so it is not retried."""
    odd = priced_session(None)
    odd["data"]["object"] |= {"id": "cs_odd", "payment_intent": "pi_odd"}
    shop.stripe.add_events(odd | {"id": "evt_odd"}, session_event())
    shop.stripe.error_status = lambda path, _: 400 if path.startswith("/v1/prices") else None
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_odd": "failed", SESSION: "missing"}


# The window


def test_sale_before_the_window_is_skipped(shop: Shop) -> None:
    """A run must not grant sales from before the worker was installed; an earlier ``--since`` does."""
    shop.stripe.add_events(session_event(), payment_intent_event(id="pi_own"), invoice_event(), at=days_ago(10))
    found = shop.found("--since", "3d")
    assert (found["exit_code"], found["skipped"], shop.balance()) == (0, 3, 0)
    assert "3 skipped: paid before the window and not in the ledger" in shop.reconcile("--since", "3d").stdout
    assert len(shop.missing("--since", "11d")) == 3


@pytest.mark.parametrize("complete", [paid_session, unpaid_session], ids=["bank debit", "manual capture"])
def test_payment_completed_at_an_unknown_time_is_skipped(shop: Shop, complete: Callable[..., dict[str, Any]]) -> None:
    """No object or event has the time, so the run counts it, and an earlier ``--since`` grants it."""
    shop.stripe.add_events(complete(), at=days_ago(5))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.objects[PAYMENT] = captured["data"]["object"] | {"created": days_ago(5)}
    shop.stripe.delete_events()
    found = shop.found("--since", "2d")
    assert (found["exit_code"], found["skipped"], shop.balance()) == (0, 1, 0)
    shop.found("--since", "6d")
    assert shop.balance() == 100


def test_manual_capture_without_credits_is_not_skipped(shop: Shop) -> None:
    """An earlier ``--since`` would not grant it."""
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id="pi_foreign")
    shop.stripe.add_events(captured, at=days_ago(10))
    assert shop.found("--since", "3d")["skipped"] == 0


def test_sale_before_the_window_without_credits_is_not_parked(shop: Shop) -> None:
    """The sale may be older than the metadata; an earlier ``--since`` parks it."""
    shop.stripe.add_events(session_event(credits=None), at=days_ago(10))
    assert not shop.missing("--since", "3d")
    assert list(shop.missing("--since", "11d")) == [SESSION]


def test_sale_after_until_is_ignored(shop: Shop) -> None:
    shop.stripe.add_events(session_event(), at=days_ago(1))
    assert not shop.missing("--since", "5d", "--until", "2d")


def test_sale_of_this_minute_is_left_out_by_until_5m(shop: Shop) -> None:
    """A nightly run leaves out webhooks still in flight; the next run covers them."""
    shop.stripe.add_events(session_event(), at=time.time() - 60)
    assert shop.found("--since", "1d", "--until", "5m")["exit_code"] == 0
    assert list(shop.missing("--since", "1d")) == [SESSION]


def test_first_run_without_since_is_rejected(shop: Shop) -> None:
    """The first run grants everything that was paid since then, so an operator must choose the time."""
    result = shop.reconcile()
    assert result.exit_code == 2
    assert result.stderr.startswith("webhook: the first run needs --since")
    assert len(result.stderr.splitlines()) == 1


def test_run_without_since_begins_at_the_end_of_the_latest(shop: Shop) -> None:
    """It begins an hour earlier; runs after a gap and dry runs do not count."""
    shop.reconcile("--since", "30d", "--until", "2026-11-01")
    shop.reconcile("--since", "2026-11-05", "--until", "2026-11-06")
    shop.reconcile("--since", "2026-10-31", "--until", "2026-11-02", "--dry-run")
    assert shop.found()["since"] == "2026-10-31T23:00:00+00:00"


def test_gap_between_runs_is_reported(shop: Shop) -> None:
    """A run without ``--since`` covers the gap."""
    shop.reconcile("--since", "9d", "--until", "5d")
    shop.stripe.add_events(session_event(), at=days_ago(4))
    result = shop.reconcile("--since", "2d", "--json")
    assert "no completed run covers" in result.stderr
    gap = json.loads(result.stdout.splitlines()[-1])["gap"]
    assert [datetime.fromisoformat(gap[end]).timestamp() for end in ("since", "until")] == pytest.approx(
        [days_ago(5), days_ago(2)], abs=60
    )
    assert list(shop.missing().values()) == [100]
    assert (shop.found("--since", "2d")["gap"], shop.reconcile("--since", "2d").stderr) == (None, "")


def test_run_until_the_future_covers_the_time_until_now(shop: Shop) -> None:
    """The next run begins there."""
    shop.reconcile("--since", "1d", "--until", "2099-01-01")
    shop.stripe.add_events(session_event())
    assert list(shop.missing().values()) == [100]


def test_run_with_until_before_since_is_rejected_in_one_line(shop: Shop) -> None:
    result = shop.reconcile("--since", "1d", "--until", "2d")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("since", ["yesterday", "3", "d", "2026-13-01", "99999999d", "1999-01-01", "-1d"])
def test_since_with_an_invalid_time_is_rejected(shop: Shop, since: str) -> None:
    """The error names the option."""
    result = shop.reconcile(f"--since={since}")
    assert result.exit_code == 2
    assert "'--since'" in result.stderr


@pytest.mark.parametrize("since", ["90m", "36h", "2w", "2026-11-01", "2026-11-01T12:30:00Z", "2026-11-01 12:30+02:00"])
def test_since_accepts_durations_and_dates(shop: Shop, since: str) -> None:
    assert shop.reconcile("--since", since).exit_code == 0


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
    invoice = invoice_event(id="in_1")
    reversals = [refund_event(payment_intent=PAYMENT), dispute_event(payment_intent=PAYMENT)]
    shop.stripe.add_events(session_event(), *reversals, invoice)
    assert shop.found("--since", "1d")["requests"] == len(shop.stripe.requests) == 11


# Objects that cannot be settled


def test_object_not_settled_is_parked_under_its_own_id(shop: Shop) -> None:
    """``webhook retry`` settles it after the sign-up."""
    other = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.stripe.add_events(session_event(user_id=other))
    [item] = shop.found("--since", "1d")["items"]
    assert (item["id"], item["status"], item["reason"]) == (SESSION, "parked", "unknown_user")
    shop.admin.execute("insert into auth.users (id) values (%s)", [other])
    environment = {"DATABASE_URL": shop.database.url, "STRIPE_LIVEMODE": "false"}
    assert CliRunner(env=environment).invoke(cli.commands, ["retry", SESSION]).exit_code == 0
    assert shop.balance(other) == 100


@pytest.mark.parametrize("parked_by", ["webhook", "run"])
def test_parked_object_is_neither_parked_twice_nor_missing(shop: Shop, parked_by: str) -> None:
    """A webhook or an earlier run has parked it."""
    event = session_event(credits=None)
    shop.stripe.add_events(event)
    if parked_by == "webhook":
        shop.deliver(event)
    else:
        shop.found("--since", "1d")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["items"], found["parked_before"]) == (0, [], 1)
    assert "1 cannot be settled, 0 of them new" in shop.reconcile("--since", "1d").stdout


def test_unreadable_object_is_not_parked_twice(shop: Shop) -> None:
    """Its parked event has no payment id."""
    event = session_event(amount_total="much")
    shop.stripe.add_events(event)
    shop.deliver(event)
    assert shop.found("--since", "1d")["items"] == []


def test_parked_event_that_jsonb_rejects_does_not_stop_a_run(shop: Shop) -> None:
    """The run compares every object that it finds with the parked events."""
    odd = session_event(event_id="evt_odd", id="cs_odd", payment_intent="pi_odd", amount_total="much")
    odd["data"]["object"]["metadata"] |= {"nul": "\u0000", "half": "\ud800"}
    shop.deliver(odd)
    shop.stripe.add_events(odd, session_event(credits=None))
    found = shop.found("--since", "1d")
    assert [each["id"] for each in found["items"]] == [SESSION]
    assert (found["exit_code"], found["parked_before"]) == (1, 1)


def test_subscription_of_an_erased_user_is_not_recorded_again(shop: Shop) -> None:
    """Its session contains the customer, and a parked payload would be kept."""
    session = session_event(mode="subscription", payment_intent=None, customer="cus_1")
    shop.stripe.add_events(session, invoice_event(id="in_1", customer="cus_1"))
    shop.found("--since", "1d")
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.admin.execute("select from billing.parked_events").rowcount == 0


@pytest.mark.parametrize(
    "corrupted",
    [{}, {"amount_total": "much"}, {"amount_total": "\0\ud800"}],
    ids=["incomplete", "unreadable", "invalid text"],
)
def test_discarded_event_stays_discarded(shop: Shop, corrupted: dict[str, Any]) -> None:
    """This also holds if the event has no readable payment id."""
    event = session_event(credits=None, **corrupted)
    shop.stripe.add_events(event)
    shop.deliver(event)
    environment = {"DATABASE_URL": shop.database.url}
    discarded = CliRunner(env=environment).invoke(cli.commands, ["discard", event["id"], "--reason", "a test purchase"])
    assert discarded.exit_code == 0
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["parked_before"]) == (0, 0)
    assert shop.admin.execute("select from billing.parked_events").rowcount == 1


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


# Failures


@pytest.mark.parametrize("status", [429, 500, 503, 0], ids=["rate limit", "error", "unavailable", "closed connection"])
def test_stripe_with_temporary_failures_is_retried(shop: Shop, status: int) -> None:
    """Every second request fails."""
    shop.stripe.add_events(session_event())
    shop.stripe.error_status = lambda _, number: status if number % 2 else None
    assert (shop.reconcile("--since", "1d").exit_code, shop.balance()) == (1, 100)


def test_stripe_that_stalls_is_retried_after_the_timeout(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_reader, "OPERATOR_TIMEOUT", (1.0, 0.2))
    released, stalled = threading.Event(), threading.Event()

    def stall(path: str) -> None:
        if path == "/v1/refunds" and not stalled.is_set():
            stalled.set()
            released.wait(20)

    shop.stripe.before_answer = stall
    shop.stripe.add_events(refund_event())
    found = shop.missing("--since", "1d")
    released.set()
    assert len(found) == 1


def test_open_payment_lookup_rejected_leaves_the_run_incomplete(shop: Shop) -> None:
    """Only the code resource_missing means that there is no such payment."""
    shop.deliver(unpaid_session())
    assert shop.found("--since", "1d")["exit_code"] == 0
    shop.stripe.objects[PAYMENT] = payment_intent_event(id=PAYMENT)["data"]["object"]
    shop.stripe.rejected_parameters = {"payment_intent"}
    assert shop.found("--since", "1d")["exit_code"] == 2


def test_invoice_payment_without_an_id_fails_its_invoice(shop: Shop) -> None:
    """The run is incomplete."""
    payment = invoice_payment_event(id="inpay_1", invoice="in_1")
    shop.stripe.add_events(invoice_event(id="in_1"), payment)
    del shop.stripe.objects["inpay_1"]["id"]
    shop.stripe.delete_events()
    found = shop.found("--since", "1d")
    assert [(each["id"], each["status"]) for each in found["items"]] == [("in_1", "failed")]
    assert (found["exit_code"], "not an object with an id" in found["items"][0]["reason"]) == (2, True)


@pytest.mark.parametrize("odd", [None, 7, "", "a\tb\x1b[0m", "x" * 300, {"id": "cs_1"}])
def test_object_without_a_usable_id_fails_alone(shop: Shop, odd: Any) -> None:
    """It is reported as failed, with a question mark as its id, and the run is incomplete."""
    shop.stripe.add_events(session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd"))
    shop.stripe.add_events(session_event(), at=days_ago(0.5))
    shop.stripe.objects["cs_odd"]["id"] = odd
    shop.stripe.objects["evt_2"] |= {"data": {"object": shop.stripe.objects["cs_odd"]}}
    found = shop.found("--since", "1d")
    items = sorted((each["status"], each["kind"], each["id"]) for each in found["items"])
    assert items == [("failed", "checkout.session", "?")] * 2 + [("missing", "checkout.session", SESSION)]
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_list_without_a_next_cursor_is_read_as_far_as_possible(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its valid objects are recorded, and the run is incomplete."""
    listed = shop.stripe._list  # noqa: SLF001 - to corrupt its answer

    def odd(every: list[Any], path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        status, body = listed(every, path, query)
        is_odd = path == "/v1/checkout/sessions" and body["data"]
        return status, body | {"data": [*body["data"], "odd"], "has_more": True} if is_odd else body

    monkeypatch.setattr(shop.stripe, "_list", odd)
    shop.stripe.add_events(session_event())
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance()) == (2, 100)
    assert "has more pages, but its last object has no id" in found["not_finished"][0]


def test_object_that_cannot_be_parked_fails_alone(shop: Shop) -> None:
    """Python reads NaN as JSON, and Postgres rejects it."""
    odd = session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd", credits=None)
    odd["data"]["object"]["metadata"] |= {"number": float("nan")}
    shop.stripe.add_events(session_event(), odd, session_event(event_id="evt_3", id="cs_3", credits=None))
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_odd": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_missing_permission_is_named_and_other_lists_are_read(shop: Shop) -> None:
    """The run is incomplete, so the next one begins at the same time."""
    shop.stripe.add_events(session_event())
    shop.stripe.error_status = lambda path, _: 403 if path == "/v1/disputes" else None
    result = shop.reconcile("--since", "1d")
    assert (result.exit_code, shop.balance()) == (2, 100)
    assert "disputes: not read; the key lacks a permission: add Disputes: Read" in result.stderr
    assert "run it again with --since 20" in result.stderr
    assert shop.reconcile().exit_code == 2


def test_missing_permission_for_prices_is_named(shop: Shop) -> None:
    """The message names Prices, not the permission for the list of sessions."""
    shop.stripe.add_events(priced_session(None))
    shop.stripe.error_status = lambda path, _: 403 if path.startswith("/v1/prices") else None
    assert (
        "Checkout Sessions: not read; the key lacks a permission: add Prices: Read"
        in shop.reconcile("--since", "1d").stderr
    )


def test_object_with_a_deleted_price_fails_alone(shop: Shop) -> None:
    """It is reported as failed, and the run is incomplete."""
    gone = priced_session(None)
    gone["data"]["object"] |= {"id": "cs_gone", "payment_intent": "pi_gone"}
    shop.stripe.add_events(gone | {"id": "evt_gone"}, session_event())
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_gone": "failed", SESSION: "missing"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_run_with_a_bug_is_incomplete(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits with 2, not with Python's 1, and prints a whole summary."""
    shop.stripe.add_events(session_event())
    monkeypatch.setattr(recorder.Recorder, "record", lambda *_: json.loads(""))
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_list_that_breaks_off_reports_how_far_it_was_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects up to there are recorded."""
    monkeypatch.setattr(stripe_reader, "_RETRY_SECONDS", 0.1)
    for number in range(150):
        session = session_event(event_id=f"evt_{number}", id=f"cs_{number}", payment_intent=f"pi_{number}")
        shop.stripe.add_events(session, at=days_ago(1) - number)
    shop.stripe.error_status = lambda path, number: 500 if path == "/v1/checkout/sessions" and number > 2 else None
    result = shop.reconcile("--since", "2d")
    reached = datetime.fromtimestamp(days_ago(1) - 99, UTC)
    assert result.exit_code == 2
    assert f"Checkout Sessions: read back to {reached:%Y-%m-%d %H:%M}" in result.stderr
    assert shop.balance() == 100 * 100


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"STRIPE_API_KEY": ""}, "STRIPE_API_KEY is not set"),
        ({"STRIPE_LIVEMODE": "true"}, "STRIPE_API_KEY is for the other mode"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "no connection"),
    ],
)
def test_run_that_cannot_begin_reports_the_cause(shop: Shop, environment: dict[str, str], cause: str) -> None:
    result = shop.reconcile("--since", "1d", **environment)
    if result.exit_code != 2:
        assert isinstance(result.exception, SettingsError)
    assert cause in result.stderr + str(result.exception)


def test_sale_that_the_database_rejects_fails_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as failed, and the run is incomplete."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    rich = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.admin.execute("insert into auth.users (id) values (%s)", [rich])
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type) values (%s, %s, 'REFUND')", [rich, 2**53 - 5]
    )
    shop.stripe.add_events(
        session_event(), session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", user_id=rich)
    )
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_2": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_database_that_becomes_unavailable_ends_the_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run retries for a while, then reports the SQLSTATE and exits with 2."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    shop.stripe.add_events(session_event())
    shop.admin.execute("alter function billing.reconcile(jsonb, boolean) rename to reconcile_no_more")
    gone = threading.Lock()

    def go_away(_: str) -> None:
        if gone.acquire(blocking=False):
            shop.admin.execute("alter function billing.schema_version() rename to schema_version_no_more")

    shop.stripe.before_answer = go_away  # once the run has begun
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance(), found["items"]) == (2, 0, [])
    assert "SQLSTATE 42883" in found["not_finished"][0]


def test_run_whose_end_cannot_be_stored_is_incomplete(shop: Shop) -> None:
    """It read everything, but the next run begins at the same time."""
    shop.admin.execute("alter function billing.finish_reconciliation(bigint) rename to finish_no_more")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_schema_that_is_too_old_is_reported_before_any_request(shop: Shop) -> None:
    """The message suggests ``webhook migrate``."""
    shop.admin.execute(
        "create or replace function billing.schema_version() returns text language sql return '20261122000006'"
    )
    result = shop.reconcile("--since", "1d")
    assert result.exit_code == 2
    assert "run webhook migrate" in result.stderr
    assert not shop.stripe.requests


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
