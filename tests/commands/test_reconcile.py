"""``webhook reconcile``: what the webhooks missed is found at Stripe, and recorded as they would have told it."""

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
    """The same session once its bank debit has come in."""
    name = "checkout.session.async_payment_succeeded"
    source = unpaid_session()["data"]["object"]
    return session_event(name, event_id=new_id("evt"), id=source["id"], payment_intent=PAYMENT, **fields)


# What is found


def test_sale_whose_webhook_never_came_is_granted(shop: Shop) -> None:
    """A missed sale is granted, told in a line and a table, and makes exit code 1; then nothing is missing."""
    shop.stripe.happened(session_event())
    first, second = shop.reconcile("--since", "1d"), shop.reconcile("--since", "1d")
    assert first.stdout.splitlines()[0] == f"missing\tcheckout.session\t{SESSION}\t+100\t{PAYMENT}"
    assert "1 missing, now recorded: +100 credits." in first.stdout
    assert "Nothing is missing." in second.stdout
    assert (first.exit_code, second.exit_code, shop.balance()) == (1, 0, 100)


def test_sales_of_every_kind_are_granted_with_their_payments_and_refunds(shop: Shop) -> None:
    """A PaymentIntent, an invoice linked to its payment, a refund of that payment, and a dispute of the first."""
    intent = payment_intent_event(id="pi_own", credits=50, amount=1000)
    invoice = invoice_event(id="in_1", credits=30, amount_paid=900)
    link = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_of_invoice")
    refund = refund_event(id="re_1", payment_intent="pi_of_invoice", amount=300)
    dispute = dispute_event(id="du_1", payment_intent="pi_own", amount=1000, balance_transactions=[-1000])
    shop.stripe.happened(intent, invoice, link, refund, dispute)
    found = shop.missing("--since", "1d")
    assert found.keys() == {"pi_own", "in_1", "inpay_1", "re_1", "du_1"}
    assert (shop.balance(), sum(found.values())) == (20, 20)
    assert not shop.missing("--since", "1d")


def test_refund_of_long_ago_that_failed_lately_is_given_back(shop: Shop) -> None:
    """Its list by creation alone would not show it, and no event was made."""
    sold, refunded = session_event(), refund_event(payment_intent=PAYMENT)
    refund_id = refunded["data"]["object"]["id"]
    shop.deliver(sold, refunded)
    before = shop.balance()
    shop.stripe.happened(refund_event("refund.failed", id=refund_id, payment_intent=PAYMENT), at=days_ago(20))
    shop.stripe.forget_events()
    assert shop.missing("--since", "2d") == {refund_id: 100 - before}
    assert shop.balance() == 100


def test_dispute_of_long_ago_that_was_won_lately_is_given_back(shop: Shop) -> None:
    """Disputes are looked back at for 180 days."""
    shop.deliver(session_event(), dispute_event(id="du_1", payment_intent=PAYMENT))
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.happened(won, at=days_ago(150))
    shop.stripe.forget_events()
    shop.found("--since", "2d")
    assert shop.balance() == 100


def test_open_dispute_that_the_ledger_knows_is_asked_for_whatever_its_age(shop: Shop) -> None:
    """Even one that no list and no event shows."""
    shop.deliver(session_event(), dispute_event(id="du_1", payment_intent=PAYMENT, status="under_review"))
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.happened(won, at=days_ago(400))
    shop.stripe.forget_events()
    shop.found("--since", "2d")
    assert shop.balance() == 100


def test_invoice_of_long_ago_that_was_paid_lately_is_granted(shop: Shop) -> None:
    """When it was paid stands in it, so no event is needed."""
    shop.stripe.happened(invoice_event(id="in_1", credits=30), at=days_ago(1), created=days_ago(60))
    shop.stripe.forget_events()
    assert shop.missing("--since", "2d") == {"in_1": 30}


def test_bank_debit_that_came_in_lately_is_granted_by_its_event(shop: Shop) -> None:
    """The session is older than the window, and the ledger never heard of it."""
    shop.stripe.happened(paid_session(), at=days_ago(1), created=days_ago(12))
    assert list(shop.missing("--since", "2d").values()) == [100]


@pytest.mark.parametrize("age", [12, 100])
def test_bank_debit_that_the_ledger_knows_as_open_is_granted_without_any_event(shop: Shop, age: int) -> None:
    """It is asked for by its payment."""
    shop.deliver(unpaid_session())
    shop.stripe.happened(paid_session(), at=days_ago(age))
    shop.stripe.forget_events()
    assert list(shop.missing("--since", "2d").values()) == [100]


def test_capture_by_hand_of_a_session_that_the_ledger_knows_is_granted_without_any_event(shop: Shop) -> None:
    """Only the payment itself says that it was captured."""
    shop.deliver(unpaid_session())
    shop.stripe.happened(unpaid_session(), at=days_ago(50))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.happened(captured, at=days_ago(50))
    shop.stripe.forget_events()
    assert list(shop.missing("--since", "2d").values()) == [100]


def test_capture_by_hand_in_the_window_of_an_older_session_is_granted_by_its_event(shop: Shop) -> None:
    """The ledger knows neither; at once, whichever list is faster."""
    shop.stripe.happened(unpaid_session(), at=days_ago(5))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.happened(captured, at=days_ago(1))
    shop.found("--since", "2d")
    assert shop.balance() == 100
    assert shop.found("--since", "2d")["exit_code"] == 0


def test_sale_granted_as_invoice_and_as_payment_is_granted_once_after_a_run(shop: Shop) -> None:
    """Both carried the credits, and the event that links them was lost: the run finds the link, and takes one back."""
    intent = payment_intent_event(id="pi_of_invoice", credits=30)
    invoice = invoice_event(id="in_1", credits=30)
    shop.stripe.happened(intent, invoice, invoice_payment_event(invoice="in_1", payment_intent="pi_of_invoice"))
    shop.deliver(intent, invoice)
    assert shop.balance() == 60
    shop.reconcile("--since", "1d")
    assert shop.balance() == 30


def test_invoice_of_many_payments_is_linked_to_all_of_them(shop: Shop) -> None:
    """An invoice holds ten; the rest are asked for."""
    links = [
        invoice_payment_event(event_id=new_id("evt"), id=f"inpay_{n}", invoice="in_1", payment_intent=f"pi_{n}")
        for n in range(12)
    ]
    shop.stripe.happened(invoice_event(id="in_1", credits=30), *links)
    shop.found("--since", "1d")
    assert shop.admin.execute("select from billing.payment_links where invoice_id = 'in_1'").rowcount == 12


INVOICE = invoice_event(id="in_1", credits=30, amount_paid=900)
LINK = invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_of_invoice")


@pytest.mark.parametrize(
    "taken_back",
    [
        refund_event(payment_intent="pi_of_invoice", amount=900),
        dispute_event(payment_intent="pi_of_invoice", amount=900, balance_transactions=[-900]),
    ],
    ids=["refund", "dispute"],
)
@pytest.mark.parametrize("webhook_came", [True, False])
def test_refund_of_an_invoice_whose_link_was_lost_finds_it_whatever_its_age(
    shop: Shop, taken_back: dict[str, Any], *, webhook_came: bool
) -> None:
    """By a question for its payment; the list of invoices does not reach that far back."""
    shop.deliver(INVOICE, *[taken_back] * webhook_came)
    shop.stripe.happened(INVOICE, LINK, at=days_ago(300))
    shop.stripe.forget_events()
    shop.stripe.happened(taken_back)
    assert shop.missing("--since", "2d")["inpay_1"] == -30
    assert shop.balance() == 0
    assert shop.found("--since", "2d")["exit_code"] == 0


def test_refund_of_an_invoice_that_is_not_ours_links_nothing(shop: Shop) -> None:
    """Neither by its question nor as something missing."""
    shop.stripe.happened(INVOICE, LINK, at=days_ago(300))
    shop.stripe.forget_events()
    shop.stripe.happened(refund_event(id="re_1", payment_intent="pi_of_invoice"))
    assert shop.missing("--since", "2d") == {"re_1": 0}
    assert shop.admin.execute("select from billing.payment_links").rowcount == 0


def test_refunds_of_known_sales_and_of_before_the_window_are_not_asked_about(shop: Shop) -> None:
    """One question is made: for the one whose sale nobody knows."""
    strange = [refund_event(event_id=new_id("evt"), id=f"re_{n}", payment_intent=f"pi_{n}") for n in (1, 2)]
    shop.deliver(session_event(), refund_event(payment_intent=PAYMENT), *strange)
    shop.admin.execute(
        "update billing.reversals set recorded_at = now() - interval '3 days' where reversal_id = 're_2'"
    )
    shop.found("--since", "2d")
    asked = [query["payment[payment_intent]"] for path, query in shop.stripe.requests if path == "/v1/invoice_payments"]
    assert asked == ["pi_1"]


def test_credits_on_a_price_are_read_from_the_line_items_in_the_list(shop: Shop) -> None:
    """No request for each session."""
    price = {"id": "price_1", "object": "price", "metadata": {"credits": "40"}, "product": "prod_1"}
    line = {"id": "li_1", "object": "item", "quantity": 2, "price": price, "amount_total": 1000}
    sold = session_event(credits=None)
    sold["data"]["object"]["line_items"] = {"object": "list", "data": [line], "has_more": False}
    shop.stripe.happened(sold)
    assert list(shop.missing("--since", "1d").values()) == [80]
    assert not [path for path, _ in shop.stripe.requests if "line_items" in path]


def priced_session(per_item: int | None) -> dict[str, Any]:
    """A session that names no credits: its price does, or its product may."""
    metadata = {} if per_item is None else {"credits": str(per_item)}
    price = {"id": "price_1", "object": "price", "metadata": metadata, "product": "prod_1"}
    line = {"id": "li_1", "object": "item", "quantity": 1, "price": price, "amount_total": 1000}
    sold = session_event(credits=None)
    sold["data"]["object"]["line_items"] = {"object": "list", "data": [line], "has_more": False}
    return sold


def test_price_that_sells_more_credits_now_grants_nothing_for_what_was_sold_before(shop: Shop) -> None:
    """Else every sale of the last 35 days would be granted anew."""
    shop.stripe.happened(priced_session(40))
    assert shop.missing("--since", "1d") == {SESSION: 40}
    shop.stripe.happened(priced_session(60))
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.balance() == 40


def test_price_that_was_changed_before_a_bank_debit_came_in_grants_what_was_sold(shop: Shop) -> None:
    """The session said how many credits when it was not paid yet."""
    unpaid, paid = priced_session(40), priced_session(60)
    unpaid["data"]["object"]["payment_status"] = "unpaid"
    shop.stripe.happened(unpaid)
    shop.found("--since", "1d")
    shop.stripe.happened(paid)
    assert shop.missing("--since", "1d") == {SESSION: 40}
    assert shop.balance() == 40


def test_metadata_that_names_more_credits_now_is_recorded_as_an_event_would(shop: Shop) -> None:
    """It stands in the object itself, where an operator has changed it."""
    shop.deliver(session_event())
    shop.stripe.happened(session_event(credits=150))
    assert (shop.missing("--since", "1d"), shop.balance()) == ({SESSION: 50}, 150)
    shop.stripe.happened(session_event(credits=50))
    assert shop.found("--since", "1d")["exit_code"] == 0


def test_connected_accounts_are_looked_at_where_they_count(shop: Shop) -> None:
    """In their name; not without STRIPE_ACCOUNT."""
    shop.stripe.account = "acct_1"
    shop.stripe.happened(session_event())
    assert not shop.missing("--since", "1d")
    result = shop.reconcile("--since", "1d", STRIPE_ACCOUNT="acct_1")
    assert (result.exit_code, shop.balance()) == (1, 100)


# How far back


def paid_by_card(shop: Shop, at: float) -> None:
    """The payment of the session, and its charge, which tells when it was paid."""
    shop.stripe.objects["ch_1"] = {"id": "ch_1", "object": "charge", "created": int(at)}
    shop.stripe.objects[PAYMENT] |= {"latest_charge": "ch_1"}


def late_session(shop: Shop, created: int) -> None:
    shop.stripe.happened(session_event(), at=created)
    paid_by_card(shop, days_ago(1))


def late_payment(shop: Shop, created: int) -> None:
    shop.stripe.happened(payment_intent_event(id=PAYMENT), at=created)
    paid_by_card(shop, days_ago(1))


def late_invoice(shop: Shop, created: int) -> None:
    shop.stripe.happened(invoice_event(id="in_1", credits=100), at=days_ago(1), created=created)


def failed_refund(shop: Shop, created: int) -> None:
    shop.deliver(session_event(amount=1000), refund_event(id="re_1", payment_intent=PAYMENT, amount=1000))
    shop.stripe.happened(refund_event("refund.failed", id="re_1", payment_intent=PAYMENT), at=created)


def won_dispute(shop: Shop, created: int) -> None:
    lost = dispute_event("charge.dispute.closed.lost", id="du_1", payment_intent=PAYMENT, amount=1000)
    shop.deliver(session_event(amount=1000), lost)
    won = dispute_event("charge.dispute.closed.won", id="du_1", payment_intent=PAYMENT)
    shop.stripe.happened(won, at=created)


@pytest.mark.parametrize(
    ("tell", "days"),
    [(late_session, 35), (late_payment, 35), (late_invoice, 180), (failed_refund, 35), (won_dispute, 180)],
)
def test_object_is_looked_back_at_as_long_as_its_kind_may_change(
    shop: Shop, tell: Callable[[Shop, int], None], days: int
) -> None:
    """So many days before the window, and no longer: what happened to it lately is found without an event."""
    tell(shop, days_ago(2 + days - 0.1))
    shop.stripe.forget_events()
    before = shop.balance()
    shop.found("--since", "2d")
    assert (before, shop.balance()) == (0, 100)


@pytest.mark.parametrize(
    ("tell", "days"),
    [(late_session, 35), (late_payment, 35), (late_invoice, 180), (failed_refund, 35), (won_dispute, 180)],
)
def test_object_of_still_longer_ago_is_not_listed(shop: Shop, tell: Callable[[Shop, int], None], days: int) -> None:
    """It would cost requests in vain, each night."""
    tell(shop, days_ago(2 + days + 0.1))
    shop.stripe.forget_events()
    assert shop.found("--since", "2d")["counts"]["missing"] == 0


@pytest.mark.parametrize(("age", "asked"), [(181.9, True), (182.1, False)])
def test_open_sale_is_asked_for_half_a_year(shop: Shop, age: float, *, asked: bool) -> None:
    """Since it was noted."""
    shop.deliver(unpaid_session())
    shop.admin.execute("update billing.sales set recorded_at = to_timestamp(%s)", [days_ago(age)])
    shop.found("--since", "2d")
    assert any(query.get("payment_intent") == PAYMENT for _, query in shop.stripe.requests) == asked


def test_events_are_asked_for_as_long_as_stripe_keeps_them(shop: Shop) -> None:
    """What is older is found by lists, or not at all."""
    shop.stripe.happened(paid_session(), at=days_ago(40), created=days_ago(200))
    shop.stripe.objects.pop(PAYMENT)
    assert not shop.missing("--since", "60d")
    [asked] = [int(query["created[gte]"]) for path, query in shop.stripe.requests if path == "/v1/events"]
    assert asked == pytest.approx(days_ago(30), abs=60)


def test_object_of_many_events_is_fetched_once(shop: Shop) -> None:
    """Though they stand on two pages."""
    for number in range(102):
        paid = session_event(event_id=f"evt_{number}")
        shop.stripe.happened(paid, at=days_ago(1) - number, created=days_ago(100))
    assert shop.missing("--since", "2d") == {SESSION: 100}
    assert [path for path, _ in shop.stripe.requests].count(f"/v1/checkout/sessions/{SESSION}") == 1


def test_link_of_an_invoice_of_long_ago_is_found_by_its_event(shop: Shop) -> None:
    """Which payment it was paid by never changes, so it is not fetched."""
    shop.deliver(INVOICE)
    shop.stripe.happened(LINK, at=days_ago(1), created=days_ago(300))
    assert list(shop.missing("--since", "2d")) == ["inpay_1"]


def test_link_of_an_invoice_of_before_the_window_counts_only_where_it_is_known(shop: Shop) -> None:
    """It is no more ours than its invoice."""
    shop.stripe.happened(INVOICE, LINK, at=days_ago(10))
    shop.stripe.forget_events()
    assert not shop.missing("--since", "2d")
    assert shop.admin.execute("select from billing.payment_links").rowcount == 0
    shop.deliver(INVOICE)
    assert list(shop.missing("--since", "2d")) == ["inpay_1"]


@pytest.mark.parametrize(
    "told",
    [
        refund_event(payment_intent=PAYMENT),
        dispute_event(payment_intent=PAYMENT),
        session_event("checkout.session.completed.subscription", customer="cus_1"),
    ],
    ids=["refund", "dispute", "who a customer is"],
)
def test_what_grants_nothing_counts_of_before_the_window_too(shop: Shop, told: dict[str, Any]) -> None:
    """Though its sale is not known: it waits for it."""
    shop.stripe.happened(told, at=days_ago(10))
    assert list(shop.missing("--since", "2d")) == [told["data"]["object"]["id"]]


def test_run_over_an_earlier_time_takes_nothing_back_of_what_was_looked_at(shop: Shop) -> None:
    """The next run without ``--since`` begins where the latest one ended."""
    shop.reconcile("--since", "9d", "--until", "2d")
    covered = shop.ledger.covered_until()
    shop.reconcile("--since", "9d", "--until", "5d")
    assert shop.ledger.covered_until() == covered


def test_object_whose_question_stripe_calls_wrong_takes_no_other_down(shop: Shop) -> None:
    """A 400 is no trouble that passes."""
    odd = priced_session(None)
    odd["data"]["object"] |= {"id": "cs_odd", "payment_intent": "pi_odd"}
    shop.stripe.happened(odd | {"id": "evt_odd"}, session_event())
    shop.stripe.trouble = lambda path, _: 400 if path.startswith("/v1/prices") else None
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_odd": "failed", SESSION: "missing"}


# The window


def test_sale_of_before_the_window_is_left_alone_until_since_says_so(shop: Shop) -> None:
    """Sales of before the worker was installed are not granted by looking back."""
    shop.stripe.happened(session_event(), payment_intent_event(id="pi_own"), invoice_event(), at=days_ago(10))
    found = shop.found("--since", "3d")
    assert (found["exit_code"], found["skipped"], shop.balance()) == (0, 3, 0)
    assert "3 skipped: paid before the window and not in the ledger" in shop.reconcile("--since", "3d").stdout
    assert len(shop.missing("--since", "11d")) == 3


@pytest.mark.parametrize("happens_late", [paid_session, unpaid_session], ids=["bank debit", "capture by hand"])
def test_payment_of_long_ago_that_came_in_without_an_event_is_told_as_left_alone(
    shop: Shop, happens_late: Callable[..., dict[str, Any]]
) -> None:
    """Nothing says when it did, so it is told, and an earlier ``--since`` grants it."""
    shop.stripe.happened(happens_late(), at=days_ago(5))
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id=PAYMENT)
    shop.stripe.objects[PAYMENT] = captured["data"]["object"] | {"created": days_ago(5)}
    shop.stripe.forget_events()
    found = shop.found("--since", "2d")
    assert (found["exit_code"], found["skipped"], shop.balance()) == (0, 1, 0)
    shop.found("--since", "6d")
    assert shop.balance() == 100


def test_payment_captured_by_hand_that_sells_no_credits_is_not_told_as_left_alone(shop: Shop) -> None:
    """No earlier ``--since`` would grant it."""
    captured = payment_intent_event("payment_intent.succeeded.manual_capture", id="pi_foreign")
    shop.stripe.happened(captured, at=days_ago(10))
    assert shop.found("--since", "3d")["skipped"] == 0


def test_sale_of_before_the_window_that_names_no_credits_is_not_parked(shop: Shop) -> None:
    """It was sold before anybody set the metadata."""
    shop.stripe.happened(session_event(credits=None), at=days_ago(10))
    assert not shop.missing("--since", "3d")
    assert list(shop.missing("--since", "11d")) == [SESSION]


def test_what_is_created_after_the_window_is_not_looked_at(shop: Shop) -> None:
    """``--until`` is an end."""
    shop.stripe.happened(session_event(), at=days_ago(1))
    assert not shop.missing("--since", "5d", "--until", "2d")


def test_sale_of_this_minute_is_found_unless_it_is_left_to_its_webhook(shop: Shop) -> None:
    """A nightly run leaves the last minutes to webhooks; the next one looks at them."""
    shop.stripe.happened(session_event(), at=time.time() - 60)
    assert shop.found("--since", "1d", "--until", "5m")["exit_code"] == 0
    assert list(shop.missing("--since", "1d")) == [SESSION]


def test_first_run_needs_to_be_told_since_when(shop: Shop) -> None:
    """For it grants what was paid from then on."""
    result = shop.reconcile()
    assert result.exit_code == 2
    assert result.stderr.startswith("webhook: the first run needs --since")
    assert len(result.stderr.splitlines()) == 1


def test_later_runs_begin_where_the_finished_ones_end(shop: Shop) -> None:
    """An hour earlier, to be exact; a run that leaves a gap does not count."""
    shop.reconcile("--since", "30d", "--until", "2026-11-01")
    shop.reconcile("--since", "2026-11-05", "--until", "2026-11-06")
    shop.reconcile("--since", "2026-10-31", "--until", "2026-11-02", "--dry-run")
    assert shop.found()["since"] == "2026-10-31T23:00:00+00:00"


def test_time_that_no_run_has_looked_at_is_told(shop: Shop) -> None:
    """Three nights were missed; a run without ``--since`` makes up for them."""
    shop.reconcile("--since", "9d", "--until", "5d")
    shop.stripe.happened(session_event(), at=days_ago(4))
    result = shop.reconcile("--since", "2d", "--json")
    assert "no completed run covers" in result.stderr
    gap = json.loads(result.stdout.splitlines()[-1])["gap"]
    assert [datetime.fromisoformat(gap[end]).timestamp() for end in ("since", "until")] == pytest.approx(
        [days_ago(5), days_ago(2)], abs=60
    )
    assert list(shop.missing().values()) == [100]
    assert (shop.found("--since", "2d")["gap"], shop.reconcile("--since", "2d").stderr) == (None, "")


def test_time_that_is_yet_to_come_does_not_count_as_looked_at(shop: Shop) -> None:
    """A run ``--until`` next year looks until now, and the next one begins there."""
    shop.reconcile("--since", "1d", "--until", "2099-01-01")
    shop.stripe.happened(session_event())
    assert list(shop.missing().values()) == [100]


def test_run_that_ends_before_its_beginning_is_refused(shop: Shop) -> None:
    """In one line."""
    result = shop.reconcile("--since", "1d", "--until", "2d")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("since", ["yesterday", "3", "d", "2026-13-01", "99999999d", "1999-01-01", "-1d"])
def test_since_that_is_no_moment_is_refused(shop: Shop, since: str) -> None:
    """And the message says how it is written."""
    result = shop.reconcile(f"--since={since}")
    assert result.exit_code == 2
    assert "'--since'" in result.stderr


@pytest.mark.parametrize("since", ["90m", "36h", "2w", "2026-11-01", "2026-11-01T12:30:00Z", "2026-11-01 12:30+02:00"])
def test_since_is_a_time_ago_or_a_date(shop: Shop, since: str) -> None:
    """As people write them."""
    assert shop.reconcile("--since", since).exit_code == 0


# Changing nothing, and nothing twice


def test_dry_run_tells_the_same_and_changes_nothing(shop: Shop) -> None:
    """Of sales, refunds and what cannot be settled."""
    refund = refund_event(payment_intent=PAYMENT)
    nameless = session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", credits=None)
    shop.stripe.happened(session_event(), refund, nameless)
    before = shop.contents()
    told = shop.found("--since", "1d", "--dry-run")
    assert shop.contents() == before
    assert shop.admin.execute("select from billing.reconciliations").rowcount == 0
    assert {each["id"]: each["status"] for each in told["items"]} == {
        SESSION: "missing",
        refund["data"]["object"]["id"]: "missing",
        "cs_2": "parked",
    }
    assert told["exit_code"] == 1
    assert "would be recorded (dry run)" in shop.reconcile("--since", "1d", "--dry-run").stdout


def test_dry_run_parks_nothing_that_a_run_would_not(shop: Shop) -> None:
    """A payment with garbled credits whose session is settled needs nobody."""
    shop.deliver(session_event())
    shop.stripe.happened(session_event(), payment_intent_event(id=PAYMENT, credits="lots"))
    assert shop.found("--since", "1d", "--dry-run")["exit_code"] == 0
    assert shop.found("--since", "1d")["exit_code"] == 0


def test_what_webhooks_have_told_is_not_missing(shop: Shop) -> None:
    """A session, its payment, and a refund that arrived."""
    events = [session_event(), refund_event(payment_intent=PAYMENT)]
    shop.stripe.happened(*events)
    shop.deliver(*events)
    before = shop.contents()
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.contents() == before


def test_events_of_what_the_lists_show_are_not_fetched_again(shop: Shop) -> None:
    """The run costs a request a list, and none an object."""
    invoice = invoice_event(id="in_1")
    taken_back = [refund_event(payment_intent=PAYMENT), dispute_event(payment_intent=PAYMENT)]
    shop.stripe.happened(session_event(), *taken_back, invoice)
    assert shop.found("--since", "1d")["requests"] == len(shop.stripe.requests) == 11


# What cannot be settled


def test_object_that_cannot_be_settled_is_parked_under_its_own_id(shop: Shop) -> None:
    """And settled by retry once it can be."""
    other = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.stripe.happened(session_event(user_id=other))
    [item] = shop.found("--since", "1d")["items"]
    assert (item["id"], item["status"], item["reason"]) == (SESSION, "parked", "unknown_user")
    shop.admin.execute("insert into auth.users (id) values (%s)", [other])
    environment = {"DATABASE_URL": shop.database.url, "STRIPE_LIVEMODE": "false"}
    assert CliRunner(env=environment).invoke(cli.commands, ["retry", SESSION]).exit_code == 0
    assert shop.balance(other) == 100


@pytest.mark.parametrize("told", ["by its event", "by its object"])
def test_what_waits_already_is_neither_parked_twice_nor_missing(shop: Shop, told: str) -> None:
    """Whichever of the two parked it."""
    event = session_event(credits=None)
    shop.stripe.happened(event)
    if told == "by its event":
        shop.deliver(event)
    else:
        shop.found("--since", "1d")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["items"], found["parked_before"]) == (0, [], 1)
    assert "1 cannot be settled, 0 of them new" in shop.reconcile("--since", "1d").stdout


def test_unreadable_object_that_waits_already_is_not_parked_twice(shop: Shop) -> None:
    """Though its parked event names no payment."""
    event = session_event(amount_total="much")
    shop.stripe.happened(event)
    shop.deliver(event)
    assert shop.found("--since", "1d")["items"] == []


def test_parked_event_that_jsonb_would_refuse_stops_no_run(shop: Shop) -> None:
    """What else is found is compared with it."""
    odd = session_event(event_id="evt_odd", id="cs_odd", payment_intent="pi_odd", amount_total="much")
    odd["data"]["object"]["metadata"] |= {"nul": "\u0000", "half": "\ud800"}
    shop.deliver(odd)
    shop.stripe.happened(odd, session_event(credits=None))
    found = shop.found("--since", "1d")
    assert [each["id"] for each in found["items"]] == [SESSION]
    assert (found["exit_code"], found["parked_before"]) == (1, 1)


def test_subscription_of_an_erased_user_does_not_come_back(shop: Shop) -> None:
    """Its session tells who the customer was, and its payload would be kept."""
    session = session_event(mode="subscription", payment_intent=None, customer="cus_1")
    shop.stripe.happened(session, invoice_event(id="in_1", customer="cus_1"))
    shop.found("--since", "1d")
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert shop.found("--since", "1d")["exit_code"] == 0
    assert shop.admin.execute("select from billing.parked_events").rowcount == 0


@pytest.mark.parametrize(
    "corrupted", [{}, {"amount_total": "much"}, {"amount_total": "\0\ud800"}], ids=["lacking", "unreadable", "awkward"]
)
def test_what_was_discarded_stays_discarded(shop: Shop, corrupted: dict[str, Any]) -> None:
    """An operator has said so of its event, though that may have named no payment."""
    event = session_event(credits=None, **corrupted)
    shop.stripe.happened(event)
    shop.deliver(event)
    environment = {"DATABASE_URL": shop.database.url}
    discarded = CliRunner(env=environment).invoke(cli.commands, ["discard", event["id"], "--reason", "a test purchase"])
    assert discarded.exit_code == 0
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["parked_before"]) == (0, 0)
    assert shop.admin.execute("select from billing.parked_events").rowcount == 1


# Progress


def test_bar_on_a_terminal_tells_how_far_a_run_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time that the lists have covered, with objects and rate."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with open(ours, "rb", buffering=0) as screen, open(its, "w", encoding="utf-8") as terminal:  # noqa: PTH123 - no path
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress()
        progress.begin([Source("refunds", "a permission", lambda: iter(()), 0, 1000)])
        progress.read(Page("refunds", [], size=100, reached=500))
        progress.close()
        terminal.close()
        shown = b""
        with suppress(OSError):  # at the end of what was written
            while piece := screen.read(10_000):
                shown += piece
    assert b" 50%|" in shown
    assert b"| 100 objects, " in shown


# Trouble


@pytest.mark.parametrize("status", [429, 500, 503, 0], ids=["rate limit", "error", "unavailable", "hung up"])
def test_stripe_in_passing_trouble_is_waited_for(shop: Shop, status: int) -> None:
    """Every second request is refused."""
    shop.stripe.happened(session_event())
    shop.stripe.trouble = lambda _, number: status if number % 2 else None
    assert (shop.reconcile("--since", "1d").exit_code, shop.balance()) == (1, 100)


def test_stripe_that_stalls_is_asked_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time-out."""
    monkeypatch.setattr(stripe_reader, "OPERATOR_TIMEOUT", (1.0, 0.2))
    let_go, stalled = threading.Event(), threading.Event()

    def stall(path: str) -> None:
        if path == "/v1/refunds" and not stalled.is_set():
            stalled.set()
            let_go.wait(20)

    shop.stripe.before_answer = stall
    shop.stripe.happened(refund_event())
    found = shop.missing("--since", "1d")
    let_go.set()
    assert len(found) == 1


def test_open_payment_that_stripe_refuses_to_tell_of_is_not_taken_for_gone(shop: Shop) -> None:
    """Only an answer that there is none is one: any other refusal leaves the run incomplete."""
    shop.deliver(unpaid_session())
    assert shop.found("--since", "1d")["exit_code"] == 0
    shop.stripe.objects[PAYMENT] = payment_intent_event(id=PAYMENT)["data"]["object"]
    shop.stripe.refused_queries = {"payment_intent"}
    assert shop.found("--since", "1d")["exit_code"] == 2


def test_invoice_payment_that_is_no_object_leaves_the_run_incomplete(shop: Shop) -> None:
    """Its invoice is told as failed."""
    payment = invoice_payment_event(id="inpay_1", invoice="in_1")
    shop.stripe.happened(invoice_event(id="in_1"), payment)
    del shop.stripe.objects["inpay_1"]["id"]
    shop.stripe.forget_events()
    found = shop.found("--since", "1d")
    assert [(each["id"], each["status"]) for each in found["items"]] == [("in_1", "failed")]
    assert (found["exit_code"], "not an object with an id" in found["items"][0]["reason"]) == (2, True)


@pytest.mark.parametrize("odd", [None, 7, "", "a\tb\x1b[0m", "x" * 300, {"id": "cs_1"}])
def test_object_without_a_usable_id_hides_no_other_of_its_list(shop: Shop, odd: Any) -> None:
    """It is told as failed, its id only where a terminal can show it, and the run is not finished."""
    shop.stripe.happened(session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd"))
    shop.stripe.happened(session_event(), at=days_ago(0.5))
    shop.stripe.objects["cs_odd"]["id"] = odd
    shop.stripe.objects["evt_2"] |= {"data": {"object": shop.stripe.objects["cs_odd"]}}
    found = shop.found("--since", "1d")
    told = sorted((each["status"], each["kind"], each["id"]) for each in found["items"])
    assert told == [("failed", "checkout.session", "?")] * 2 + [("missing", "checkout.session", SESSION)]
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_list_that_does_not_say_how_it_goes_on_is_read_as_far_as_it_goes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in it is recorded, and the run is not finished."""
    listed = shop.stripe._list  # noqa: SLF001 - to corrupt its answer

    def odd(every: list[Any], path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        status, body = listed(every, path, query)
        is_odd = path == "/v1/checkout/sessions" and body["data"]
        return status, body | {"data": [*body["data"], "odd"], "has_more": True} if is_odd else body

    monkeypatch.setattr(shop.stripe, "_list", odd)
    shop.stripe.happened(session_event())
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance()) == (2, 100)
    assert "has more pages, but its last object has no id" in found["not_finished"][0]


def test_object_that_the_database_refuses_to_park_takes_no_other_down(shop: Shop) -> None:
    """JSON as Python takes it, and Postgres does not."""
    odd = session_event(event_id="evt_2", id="cs_odd", payment_intent="pi_odd", credits=None)
    odd["data"]["object"]["metadata"] |= {"number": float("nan")}
    shop.stripe.happened(session_event(), odd, session_event(event_id="evt_3", id="cs_3", credits=None))
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_odd": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_right_that_the_key_lacks_is_named_and_the_rest_is_done(shop: Shop) -> None:
    """The run is not finished, and the next one begins where it did."""
    shop.stripe.happened(session_event())
    shop.stripe.trouble = lambda path, _: 403 if path == "/v1/disputes" else None
    result = shop.reconcile("--since", "1d")
    assert (result.exit_code, shop.balance()) == (2, 100)
    assert "disputes: not read; the key lacks a permission: add Disputes: Read" in result.stderr
    assert "run it again with --since 20" in result.stderr
    assert shop.reconcile().exit_code == 2


def test_right_to_prices_that_the_key_lacks_is_named(shop: Shop) -> None:
    """Not the right to the list whose objects took it."""
    shop.stripe.happened(priced_session(None))
    shop.stripe.trouble = lambda path, _: 403 if path.startswith("/v1/prices") else None
    assert (
        "Checkout Sessions: not read; the key lacks a permission: add Prices: Read"
        in shop.reconcile("--since", "1d").stderr
    )


def test_object_whose_price_is_gone_takes_no_other_down(shop: Shop) -> None:
    """It is named, and the run is not finished."""
    gone = priced_session(None)
    gone["data"]["object"] |= {"id": "cs_gone", "payment_intent": "pi_gone"}
    shop.stripe.happened(gone | {"id": "evt_gone"}, session_event())
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {"cs_gone": "failed", SESSION: "missing"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_run_that_meets_a_defect_is_not_finished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, not the 1 of Python, and a whole summary."""
    shop.stripe.happened(session_event())
    monkeypatch.setattr(recorder.Recorder, "record", lambda *_: json.loads(""))
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_place_where_a_list_broke_off_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what came before is recorded."""
    monkeypatch.setattr(stripe_reader, "_RETRY_SECONDS", 0.1)
    for number in range(150):
        session = session_event(event_id=f"evt_{number}", id=f"cs_{number}", payment_intent=f"pi_{number}")
        shop.stripe.happened(session, at=days_ago(1) - number)
    shop.stripe.trouble = lambda path, number: 500 if path == "/v1/checkout/sessions" and number > 2 else None
    result = shop.reconcile("--since", "2d")
    reached = datetime.fromtimestamp(days_ago(1) - 99, UTC)
    assert result.exit_code == 2
    assert f"Checkout Sessions: read back to {reached:%Y-%m-%d %H:%M}" in result.stderr
    assert shop.balance() == 100 * 100


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"STRIPE_API_KEY": ""}, "STRIPE_API_KEY is not set"),
        ({"STRIPE_LIVEMODE": "true"}, "STRIPE_API_KEY is for the other mode"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "no connection"),
    ],
)
def test_run_that_cannot_begin_says_why_in_one_line(shop: Shop, environment: dict[str, str], named: str) -> None:
    """Exit code 2."""
    result = shop.reconcile("--since", "1d", **environment)
    if result.exit_code != 2:
        assert isinstance(result.exception, SettingsError)
    assert named in result.stderr + str(result.exception)


def test_sale_that_the_database_refuses_takes_no_other_down(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and the run is not finished."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    rich = "3b241101-e2bb-4255-8caf-4136c566a962"
    shop.admin.execute("insert into auth.users (id) values (%s)", [rich])
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type) values (%s, %s, 'REFUND')", [rich, 2**53 - 5]
    )
    shop.stripe.happened(
        session_event(), session_event(event_id="evt_2", id="cs_2", payment_intent="pi_2", user_id=rich)
    )
    found = shop.found("--since", "1d")
    assert {each["id"]: each["status"] for each in found["items"]} == {SESSION: "missing", "cs_2": "failed"}
    assert (found["exit_code"], shop.balance()) == (2, 100)


def test_database_that_goes_away_ends_the_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some patience, with what it was and exit code 2."""
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.1)
    shop.stripe.happened(session_event())
    shop.admin.execute("alter function billing.reconcile(jsonb, boolean) rename to reconcile_no_more")
    gone = threading.Lock()

    def go_away(_: str) -> None:
        if gone.acquire(blocking=False):
            shop.admin.execute("alter function billing.schema_version() rename to schema_version_no_more")

    shop.stripe.before_answer = go_away  # once the run has begun
    found = shop.found("--since", "1d")
    assert (found["exit_code"], shop.balance(), found["items"]) == (2, 0, [])
    assert "SQLSTATE 42883" in found["not_finished"][0]


def test_run_whose_end_cannot_be_noted_is_not_finished(shop: Shop) -> None:
    """Though everything was seen: the next one begins where it did."""
    shop.admin.execute("alter function billing.finish_reconciliation(bigint) rename to finish_no_more")
    found = shop.found("--since", "1d")
    assert (found["exit_code"], found["complete"]) == (2, False)


def test_schema_that_is_too_old_is_named_before_anything_else(shop: Shop) -> None:
    """And so is what to do."""
    shop.admin.execute(
        "create or replace function billing.schema_version() returns text language sql return '20261122000006'"
    )
    result = shop.reconcile("--since", "1d")
    assert result.exit_code == 2
    assert "run webhook migrate" in result.stderr
    assert not shop.stripe.requests


def test_clock_process_of_the_page_retries_each_hour_and_reconciles_each_night(tmp_path: Path) -> None:
    """The line as it stands there, with a clock that runs fast: from 02:00 to 03:00, then it is stopped."""
    page = (DOCS / "how-to" / "reconcile.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^clock: (.+)$", page, re.MULTILINE)
    programs = {
        "sleep": 'n=$(cat hours 2>/dev/null || echo 1); echo $((n + 1)) > hours; test "$n" -lt 3',
        "date": 'printf "0%s" "$(cat hours)"',
        "webhook": 'echo "$@" >> asked',
    }
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.defpath}"}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, timeout=20, check=False)
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked == ["retry", "retry", "reconcile --since 2d --until 5m"]
