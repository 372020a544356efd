"""docs/explanation/settlement.md: the table of invoices shows what the worker grants for them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

from support.invoices import DAY, Line, Plan, subscription_invoice
from support.project import DOCS
from webhook.events.event import EventScope, read_event
from webhook.events.facts import Facts, Ignored, Sale
from webhook.events.interpret import interpret
from webhook.events.lookups import ReadablePrice

PAGE = DOCS / "explanation" / "settlement.md"
BEGIN, END = "<!-- invoices -->\n", "<!-- /invoices -->\n"
HEADING = "| invoice | lines | paid with money | grants |\n| --- | --- | --- | --- |\n"

NOW = 1_768_435_200  # 2026-01-15 00:00 UTC
MONTHLY = Plan("price_monthly", 1000, 100)
YEARLY = Plan("price_yearly", 9600, 1200, months=12)
MONTH = Line(MONTHLY, 1000, NOW, NOW + 31 * DAY, description="month")
YEAR = Line(YEARLY, 9600, NOW, NOW + 365 * DAY, description="year")
FEE = Line(None, 700, NOW, NOW, description="fee")


def unused(line: Line, amount: int) -> Line:
    return replace(line, amount=-amount, proration=True, description=f"unused {line.description}")


@dataclass(frozen=True)
class Example:
    name: str
    lines: list[Line]
    fields: dict[str, Any] = field(default_factory=dict)

    def row(self) -> str:
        """Return the example's row of the table."""
        whole = 1200 if YEARLY in [line.plan for line in self.lines if line.amount > 0] else 100
        event = subscription_invoice(*self.lines, **{"created": NOW, "credits": whole} | self.fields)
        paid = event["data"]["object"]["amount_paid"]
        lines = ", ".join(described(line) for line in self.lines)
        return f"| {self.name} | {lines} | {paid / 100:.2f} | {granted(event)} |\n"


def described(line: Line) -> str:
    discount = f" less {line.discount / 100:.2f}" if line.discount else ""
    tax = f" plus tax {line.exclusive_tax / 100:.2f}" if line.exclusive_tax else ""
    return f"{line.description} {line.amount / 100:.2f}{discount}{tax}"


def granted(event: dict[str, Any]) -> str:
    prices = {ReadablePrice(plan.price_id): plan.price() for plan in (MONTHLY, YEARLY)}
    match interpret(read_event(json.dumps(event)), EventScope(livemode=False), prices.get):
        case Facts(facts):
            return next(str(fact.credits) for fact in facts if isinstance(fact, Sale))
        case Ignored(reason):
            return f"nothing: `{reason}`"
        case _:
            raise AssertionError


UPDATE = {"reason": "subscription_update"}
CREATE = {"reason": "subscription_create"}
EXAMPLES = [
    Example("a renewal", [MONTH]),
    Example("monthly to yearly, at once", [unused(MONTH, 1000), YEAR], UPDATE),
    Example("then back to monthly", [unused(YEAR, 9600), MONTH], UPDATE | {"ending_balance": -8600}),
    Example("then yearly again, from the balance", [unused(MONTH, 1000), YEAR], UPDATE | {"balance": -8600}),
    Example("monthly to yearly, half a month later", [unused(MONTH, 500), YEAR], UPDATE),
    Example("free to paid, or a trial that ends early", [MONTH], UPDATE),
    Example(
        "a third seat in the middle of the month",
        [unused(MONTH, 1000), replace(MONTH, amount=1500, quantity=3, proration=True, description="rest of month")],
        UPDATE,
    ),
    Example("a trial and a set-up fee", [FEE, replace(MONTH, amount=0, description="trial")], CREATE),
    Example("usage in arrears", [replace(MONTH, amount=700, start=NOW - DAY, end=NOW, description="usage")]),
    Example("a renewal and a fee", [MONTH, FEE]),
    Example("a renewal, 4.00 of it from the balance", [MONTH], {"balance": -400}),
    Example("a renewal, paid by a credit note", [MONTH], {"balance": -1000}),
    Example("a coupon of 90 %", [replace(MONTH, discount=900)]),
    Example("a coupon of 100 %", [replace(MONTH, discount=1000)]),
    Example("a tax of 20 %", [MONTH.with_tax(20)]),
    Example("a tax of 20 %, half from the balance", [MONTH.with_tax(20)], {"balance": -600}),
    Example("ten days before an anchor", [Line(MONTHLY, 323, NOW, NOW + 10 * DAY, description="part")], CREATE),
    Example("a total below the minimum charge", [replace(MONTH, discount=970)], {"ending_balance": 30}),
]


def test_table_of_the_page_shows_what_invoices_grant() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    table = HEADING + "".join(example.row() for example in EXAMPLES)
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(before + begin + table + end + after, encoding="utf-8")
        return
    assert begin + table + end in page
