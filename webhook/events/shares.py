"""The share of its credits that a subscription's invoice grants: credits follow money. Pure functions, no I/O.

``docs/explanation/settlement.md`` has the rule and worked examples. All arithmetic is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from webhook.events.fields import JSONObject, signed_amount
from webhook.events.invoice_lines import InvoiceLine

_FREE_PERIODS_COUNT = ("subscription_create", "subscription_cycle")
"""The billing reasons of invoices whose periods count although a coupon makes them free."""


def paid_share(source: JSONObject, periods: Sequence[InvoiceLine], others: Sequence[InvoiceLine]) -> Fraction:
    """Return the share of the periods' price that was paid with money, from 0 to 1.

    ``periods`` are the lines that begin a period, ``others`` all other lines of the invoice. Money pays the other lines
    first. A period that a coupon makes free counts in full at the start and at each renewal, and not after a change.
    """
    price = sum(line.net for line in periods)
    if price <= 0:
        return Fraction(source.get("billing_reason") in _FREE_PERIODS_COUNT)
    money = _money_for_lines(source, [*periods, *others]) - _price_of_others(others)
    return min(Fraction(1), max(Fraction(0), money / price))


def _money_for_lines(source: JSONObject, lines: Sequence[InvoiceLine]) -> Fraction:
    """Return the money that pays the lines, in minor units, without the exclusive taxes and shipping in ``total``."""
    total = signed_amount(source, "total")
    sum_of_lines = sum(line.net - line.other_credits for line in lines)
    if total <= 0:
        return Fraction(0)
    has_credit = any(line.net < 0 for line in lines)
    money = total - _paid_without_money(source) - (_new_debt(source) if has_credit else 0)
    return Fraction(max(0, money) * max(0, sum_of_lines), total)


def _paid_without_money(source: JSONObject) -> int:
    """Return what a credit note on the open invoice and the customer's credit balance pay, in minor units.

    https://docs.stripe.com/invoicing/integration/credit-notes and https://docs.stripe.com/billing/customer/balance:
    a balance below 0 is the customer's credit. ``amount_paid`` does not show what was paid outside Stripe, so it does
    not count.
    """
    start, end = (min(0, balance) for balance in _balances(source))
    return signed_amount(source, "pre_payment_credit_notes_amount") + max(0, end - start)


def _new_debt(source: JSONObject) -> int:
    """Return what the invoice adds to the customer's debt, because its total is below the minimum charge.

    The next invoice collects a debt, so it counts as paid. But a change of plans adds and removes small debts without
    any payment. So a debt does not count if the invoice also credits money.
    https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
    """
    start, end = (max(0, balance) for balance in _balances(source))
    return max(0, end - start)


def _balances(source: JSONObject) -> tuple[int, int]:
    return signed_amount(source, "starting_balance"), signed_amount(source, "ending_balance")


def _price_of_others(lines: Sequence[InvoiceLine]) -> int:
    """Return what the lines that begin no period cost, in minor units, 0 or more.

    A negative invoice item and unused time pay without money. So fees and usage together count as 0 at least, and
    prorations together do, too.
    """
    fees = sum(line.net for line in lines if not line.is_proration)
    prorations = sum(line.net for line in lines if line.is_proration)
    return max(0, fees) + max(0, prorations)
