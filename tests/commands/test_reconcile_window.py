"""The time that ``webhook reconcile`` covers: its window, and the objects from before it that it still lists."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from support.reconciliation import INVOICE, LINK, PAYMENT, SESSION, days_ago, paid_session, unpaid_session
from support.recorded import dispute_event, invoice_event, payment_intent_event, refund_event, session_event
from support.shop import Shop

# Objects from before the window


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
    newest = days_ago(1)
    for number in range(102):
        paid = session_event(event_id=f"evt_{number}")
        shop.stripe.add_events(paid, at=newest - number, created=days_ago(100))
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
    invoice = shop.stripe.objects[INVOICE["id"]]  # as old as its object
    shop.stripe.delete_events()
    assert not shop.missing("--since", "2d")
    assert shop.admin.execute("select from billing.payment_links").rowcount == 0
    shop.deliver(invoice)
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


def test_run_over_an_earlier_time_does_not_move_the_next_start(shop: Shop) -> None:
    """The next run without ``--since`` still begins at the end of the latest run."""
    shop.reconcile("--since", "9d", "--until", "2d")
    covered = shop.ledger.covered_until()
    shop.reconcile("--since", "9d", "--until", "5d")
    assert shop.ledger.covered_until() == covered


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


def test_manual_capture_without_credits_is_not_counted(shop: Shop) -> None:
    """The run does not count it as skipped, because an earlier ``--since`` would not grant it."""
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
    shop.reconcile("--since", "2026-10-02", "--until", "2026-11-01")
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
