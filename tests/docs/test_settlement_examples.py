"""docs/explanation/settlement.md: the numbers in its table come from a real ledger."""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
import pytest

from support.delivery import deliver_to
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
from webhook.ledger.ledger import Ledger

PAGE = DOCS / "explanation" / "settlement.md"
BEGIN, END = "<!-- examples -->\n", "<!-- /examples -->\n"
HEADING = "| example | what happens | ledger rows | balance |\n| --- | --- | --- | --- |\n"

Event = dict[str, Any]
SPENT_80 = {"type": "spent"}


def sale(credits: int = 100, amount: int = 1000) -> Event:  # noqa: A002
    return session_event(credits=credits, amount=amount, payment_intent="pi_1")


def refund(amount: int, name: str = "refund.created", payment: str = "pi_1", number: int = 1) -> Event:
    return refund_event(name, id=f"re_{number}", payment_intent=payment, amount=amount)


def dispute(*entries: int, amount: int = 1000, status: str = "needs_response") -> Event:
    return dispute_event(id="du_1", payment_intent="pi_1", amount=amount, balance_transactions=entries, status=status)


EXAMPLES: dict[str, list[tuple[str, Event]]] = {
    "rounding": [
        ("10 credits for 9.99 are bought", sale(10, 999)),
        ("3.33 refunded", refund(333)),
        ("3.33 more", refund(333, number=2)),
        ("and the last 3.33", refund(333, number=3)),
    ],
    "rounding in the customer's favour": [("bought", sale()), ("3.33 refunded", refund(333))],
    "a refund that fails": [
        ("bought", sale()),
        ("refunded", refund(1000)),
        ("it failed", refund(1000, "refund.failed")),
    ],
    "a refund that failed before it was seen": [
        ("bought", sale()),
        ("a refund failed", refund(1000, "refund.failed")),
        ("it was made", refund(1000)),
    ],
    "a refund before its sale": [("2.50 refunded", refund(250)), ("bought", sale())],
    "overlap: a refund and a dispute": [
        ("bought", sale()),
        ("6.00 refunded", refund(600)),
        ("all of it disputed", dispute(-1000)),
        ("won", dispute(-1000, 1000, status="won")),
    ],
    "a dispute above the charge": [("bought", sale()), ("12.00 disputed", dispute(-1200, amount=1200))],
    "a dispute below the charge": [("bought", sale()), ("4.00 disputed", dispute(-400, amount=400))],
    "a partial reinstatement": [
        ("bought", sale()),
        ("disputed", dispute(-1000)),
        ("4.00 come back", dispute(-1000, 400, status="lost")),
    ],
    "a dispute settled in another currency": [
        ("bought", sale()),
        ("disputed, 9.30 euros withdrawn", dispute(-930)),
        ("3.10 euros come back", dispute(-930, 310)),
    ],
    "an inquiry": [("bought", sale()), ("an inquiry", dispute(status="warning_needs_response"))],
    "debt": [("bought", sale()), ("80 credits spent", SPENT_80), ("all refunded", refund(1000))],
    "session and intent disagree": [
        ("session: 100 credits", sale()),
        ("intent: 120 credits", payment_intent_event(id="pi_1", credits=120)),
        ("half refunded", refund(500)),
    ],
    "two payments of one invoice": [
        ("invoice paid", invoice_event(id="in_1")),
        ("by one payment", invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_1")),
        ("and another", invoice_payment_event(id="inpay_2", invoice="in_1", payment_intent="pi_2")),
        ("4.00 of one refunded", refund(400)),
        ("6.00 of the other", refund(600, payment="pi_2", number=2)),
    ],
    "two sales turn out to be one": [
        ("session", sale()),
        ("invoice", invoice_event(id="in_1")),
        ("their link", invoice_payment_event(id="inpay_1", invoice="in_1", payment_intent="pi_1")),
    ],
}


class Books:
    """The ledger of one user."""

    def __init__(self, admin: psycopg.Connection[Any], ledger: Ledger) -> None:
        self.admin = admin
        self.ledger = ledger

    def deliver(self, event: Event) -> None:
        if event is SPENT_80:
            self.admin.execute(
                "insert into public.transactions (user_id, amount, type) values (%s, -80, 'GENERATION')", [USER_ID]
            )
            return
        outcome = deliver_to(self.ledger, event)
        assert outcome.name in ("recorded", "duplicate", "ignored")

    def rows(self) -> list[str]:
        query = "select coalesce(stripe_id, 'spent'), amount from public.transactions order by ctid"
        return [f"`{name}` {amount:+}" for name, amount in self.admin.execute(query)]

    def balance(self) -> int:
        [(balance,)] = self.admin.execute("select credits_balance from public.users").fetchall()
        return int(balance)


@pytest.fixture
def books(admin: psycopg.Connection[Any], ledger: Ledger, buyer: str) -> Books:
    assert buyer
    return Books(admin, ledger)


def row_of(example: str, books: Books) -> str:
    steps = []
    for step, event in EXAMPLES[example]:
        books.deliver(event)
        steps.append(f"{step}: {books.balance()}")
    return f"| {example} | {'; '.join(steps)} | {', '.join(books.rows())} | {books.balance()} |\n"


def with_row(page: str, example: str, row: str) -> str:
    """Return the page with the example's row replaced, or appended to the table if the example is new."""
    before, begin, table = page.partition(BEGIN)
    old = re.compile(rf"^\| {re.escape(example)} \|.*\n", re.MULTILINE)
    table = old.sub(lambda _: row, table) if old.search(table) else table.replace(END, row + END)
    return before + begin + table


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_the_page_matches_the_ledger(example: str, books: Books) -> None:
    row, page = row_of(example, books), PAGE.read_text(encoding="utf-8")
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(with_row(page, example, row), encoding="utf-8")
        return
    assert row in page


def test_table_of_the_page_has_exactly_these_examples() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, _ = rest.partition(END)
    assert table.startswith(HEADING)
    names = [line.split(" | ")[0].removeprefix("| ") for line in table.removeprefix(HEADING).splitlines()]
    assert names == list(EXAMPLES)
