"""`webhook audit` prints a finding for each kind of corruption."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from support.audit import GENERATION, HOLD, LINK, LONG_AGO, Audit, Corrupt, Worker, findings
from support.generations import capture, hold
from support.roles import ALICE, BOB, add, record, refund, sale

Admin = psycopg.Connection[Any]

NEW = "ffffffff-0000-4000-8000-00000000000f"


def test_audit_reports_a_balance_that_differs_from_its_rows(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.users set credits_balance = 80 where id = '{ALICE}'", balances=False)
    assert findings(audit) == [
        f"balance: user {ALICE}: balance is not the sum of its ledger rows: expected 75, found 80"
    ]


CLAIM = {"kind": "claim", "subscription_id": "sub_1", "customer_id": "cus_1", "level": 3}


def claimed_sale(admin: Admin, *users: str) -> None:
    """Record a sale that names no user, and then claims of its subscription."""
    record(admin, sale("in_9", None, version=2, subscription_id="sub_1", customer_id="cus_1"), event_id="evt_9")
    for user in users:
        record(admin, CLAIM | {"user_id": user}, event_id=f"evt_{user}")


def test_audit_reports_credits_of_another_user_than_the_claims(audit: Audit, corrupt: Corrupt, admin: Admin) -> None:
    claimed_sale(admin, BOB)
    corrupt(f"update billing.claims set user_id = '{ALICE}'")
    assert sorted(findings(audit)) == [
        f"settlement: payment in_9, user {ALICE}, rows nothing: credits do not match the facts: expected 100, found 0",
        f"settlement: payment in_9, user {BOB}, rows in_9: credits do not match the facts: expected 0, found 100",
    ]


def test_audit_reports_a_sale_that_lost_its_user_unlisted(audit: Audit, admin: Admin) -> None:
    """Its ledger rows add up to 0, and no entry says that somebody paid."""
    claimed_sale(admin, ALICE, BOB)
    admin.execute("delete from billing.parked_events")
    admin.execute(LONG_AGO)
    assert findings(audit) == [
        (
            "settlement: payment in_9: a paid sale is not settled, and no event of it is parked: "
            "expected a ledger row or a parked event, found nothing"
        )
    ]


def test_audit_reports_a_balance_without_ledger_rows(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.users set credits_balance = 80 where id = '{BOB}'", balances=False)
    assert findings(audit) == [f"balance: user {BOB}: balance is not the sum of its ledger rows: expected 0, found 80"]


def test_audit_reports_rows_of_a_table_inheriting_the_ledger(audit: Audit, settled: Worker, admin: Admin) -> None:
    """No trigger sees the rows that the owner adds there, but the ledger's sums include them."""
    assert settled
    admin.execute("create table public.mine () inherits (public.transactions)")
    admin.execute("insert into public.mine (user_id, amount, type) values (%s, 5, 'PURCHASE')", [BOB])
    assert findings(audit) == [f"balance: user {BOB}: balance is not the sum of its ledger rows: expected 5, found 0"]


def test_audit_reports_rows_and_holds_of_a_missing_user(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"delete from public.users where id = '{ALICE}'")
    assert findings(audit) == [
        f"balance: user {ALICE}: ledger rows of a user that does not exist: expected 75, found nothing",
        (
            f"settlement: payment pi_1, user {ALICE}, rows pi_1 re_1:"
            " credits of a sale without a user or credits: expected 0, found 75"
        ),
        f"hold: user {ALICE}, row {HOLD}: its user does not exist: expected a user, found nothing",
    ]


@pytest.mark.parametrize(
    ("corrupted", "rows", "expected", "found"),
    [
        ("update public.transactions set amount = 90 where stripe_id = 'pi_1'", "pi_1 re_1", 75, 65),
        ("delete from public.transactions where stripe_id = 're_1'", "pi_1", 75, 100),
        ("delete from public.transactions where payment_id = 'pi_1'", "nothing", 75, 0),
        ("update billing.sales set credits = 200", "pi_1 re_1", 150, 75),
        ("update billing.sales set money_amount = 250", "pi_1 re_1", 0, 75),
        ("update billing.sales set money_amount = 0", "pi_1 re_1", 100, 75),
        ("update billing.reversals set money_amount = 999", "pi_1 re_1", 1, 75),
        ("update billing.reversals set money_amount = 2000", "pi_1 re_1", 0, 75),
    ],
)
def test_audit_reports_credits_that_do_not_match_the_facts(  # noqa: PLR0913, PLR0917 - fixtures
    corrupted: str, rows: str, expected: int, found: int, audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(corrupted)
    message = f"credits do not match the facts: expected {expected}, found {found}"
    lines = [line for line in findings(audit) if "its money matches no fact" not in line]
    assert lines == [f"settlement: payment pi_1, user {ALICE}, rows {rows}: {message}"]


def test_audit_reports_credits_of_an_unpaid_sale(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("update billing.sales set paid = false")
    message = "credits of a sale that is not paid: expected 0, found 75"
    assert findings(audit) == [f"settlement: payment pi_1, user {ALICE}, rows pi_1 re_1: {message}"]


def test_audit_reports_both_users_of_a_misassigned_sale(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.transactions set user_id = '{BOB}' where stripe_id = 'pi_1'")
    message = "credits do not match the facts: expected"
    assert sorted(findings(audit)) == [
        f"settlement: payment pi_1, user {ALICE}, rows re_1: {message} 75, found -25",
        f"settlement: payment pi_1, user {BOB}, rows pi_1: {message} 0, found 100",
    ]


def test_audit_reports_rows_of_a_sale_without_facts(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("delete from billing.sales")
    message = "its payment_id names no known sale: expected 0, found"
    assert sorted(findings(audit)) == [
        f"row: payment pi_1, user {ALICE}, row pi_1: {message} 100",
        f"row: payment pi_1, user {ALICE}, row re_1: {message} -25",
    ]


def test_audit_reports_a_row_of_an_unknown_refund(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("delete from billing.reversals")
    assert findings(audit) == [
        (
            f"settlement: payment pi_1, user {ALICE}, rows pi_1 re_1:"
            " credits do not match the facts: expected 100, found 75"
        ),
        (
            f"row: payment pi_1, user {ALICE}, row re_1:"
            " its stripe_id names no known refund or dispute: expected pi_1, found re_1"
        ),
    ]


def test_audit_reports_a_purchase_with_another_sales_id(audit: Audit, settled: Worker, corrupt: Corrupt) -> None:
    record(settled, sale("pi_2", ALICE, paid=False))
    corrupt("update public.transactions set stripe_id = 'pi_2' where stripe_id = 'pi_1'")
    assert findings(audit) == [
        (
            f"row: payment pi_1, user {ALICE}, row pi_2:"
            " its payment_id and its stripe_id name two sales: expected pi_1, found pi_2"
        )
    ]


def test_audit_reports_a_manual_purchase_without_its_money(audit: Audit, settled: Worker) -> None:
    """Refunds of this purchase could not be settled."""
    add(settled, BOB, 100, stripe_id="pi_2", payment_id="pi_2")
    message = "a row from Stripe is incomplete: expected stripe_id, payment_id, money_amount and currency"
    assert findings(audit) == [f"row: payment pi_2, user {BOB}, row pi_2: {message}, found no money_amount, currency"]


@pytest.mark.parametrize("column", ["payment_id", "money_amount", "currency"])
def test_audit_reports_an_incomplete_row_from_stripe(column: str, audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.transactions set {column} = null where stripe_id = 're_1'")
    message = (
        f"a row from Stripe is incomplete: expected stripe_id, payment_id, money_amount and currency, found no {column}"
    )
    assert findings(audit) == [f"row: payment pi_1, user {ALICE}, row re_1: {message}"]


@pytest.mark.parametrize(
    ("kind", "amount", "columns", "missing"),
    [
        ("PURCHASE", 40, {}, "stripe_id, payment_id, money_amount, currency"),
        ("REFUND", -40, {}, "stripe_id, payment_id, money_amount, currency"),
        ("REFUND", -40, {"payment_id": "pi_1", "money_amount": "1", "currency": "usd"}, "stripe_id"),
    ],
)
def test_audit_reports_an_incomplete_row_with_an_event_id(  # noqa: PLR0913, PLR0917 - fixtures
    kind: str, amount: int, columns: dict[str, str], missing: str, audit: Audit, settled: Worker
) -> None:
    row = add(settled, ALICE, amount, type=kind, event_id="evt_made_up", **columns)
    message = "a row from Stripe is incomplete: expected stripe_id, payment_id, money_amount and currency, found no "
    assert [line for line in findings(audit) if line.endswith(f"row {row}: {message}{missing}")]


@pytest.mark.parametrize(
    ("corrupted", "row", "message"),
    [
        ("money_amount = 1 where stripe_id = 'pi_1'", "pi_1", "its money matches no fact"),
        ("currency = 'eur' where stripe_id = 'pi_1'", "pi_1", "its money matches no fact"),
        ("type = 'REFUND' where stripe_id = 'pi_1'", "pi_1", "its type does not match its cause"),
        ("type = 'GENERATION' where stripe_id = 're_1'", "re_1", "its type does not match its cause"),
    ],
)
def test_audit_reports_a_row_with_wrong_money_or_type(
    corrupted: str, row: str, message: str, audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(f"update public.transactions set {corrupted}")
    [line] = findings(audit)
    assert line.startswith(f"row: payment pi_1, user {ALICE}, row {row}: {message}: expected ")


def test_audit_reports_a_refund_of_type_purchase(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(
        "alter table public.transactions drop constraint transactions_amount_sign",
        "update public.transactions set type = 'PURCHASE' where stripe_id = 're_1'",
    )
    message = "its type does not match its cause: expected REFUND, found PURCHASE"
    assert findings(audit) == [f"row: payment pi_1, user {ALICE}, row re_1: {message}"]


UNSETTLED = "a paid sale is not settled, and no event of it is parked: expected a ledger row or a parked event"


@pytest.mark.parametrize("missing", [{"user_id": None}, {"credits": None}])
def test_audit_reports_a_paid_sale_neither_settled_nor_parked(
    missing: dict[str, Any], audit: Audit, settled: Worker, corrupt: Corrupt
) -> None:
    record(settled, sale("pi_2", BOB) | missing)
    assert findings(audit) == []
    corrupt(LONG_AGO)
    assert findings(audit) == [f"settlement: payment pi_2: {UNSETTLED}, found nothing"]


def test_audit_reports_a_reversal_in_another_currency(audit: Audit, settled: Worker) -> None:
    record(settled, refund("re_2", "pi_1", 1) | {"currency": "eur"})
    message = "a reversal in another currency than its sale took all its credits: expected usd, found eur"
    assert findings(audit) == [f"currency: payment pi_1, row re_2: {message}"]


@pytest.mark.parametrize(
    ("corrupted", "messages"),
    [
        (
            f"""
            drop index public.transactions_refunds_key;
            insert into public.transactions (user_id, amount, type, refunds)
            values ('{ALICE}', 10, 'REFUND', '{GENERATION}')
            """,
            [f"user {ALICE}, row {GENERATION}: it was not given back exactly once and in full: expected 10, found 20"],
        ),
        (
            f"update public.transactions set amount = 11 where refunds = '{GENERATION}'",
            [f"user {ALICE}, row {GENERATION}: it was not given back exactly once and in full: expected 10, found 11"],
        ),
        (
            f"update public.transactions set user_id = '{BOB}' where refunds = '{GENERATION}'",
            [f"user {BOB}, row {GENERATION}: it was given back to another user: expected 0, found 10"],
        ),
        (
            f"delete from public.transactions where id = '{GENERATION}'",
            [f"user {ALICE}, row {GENERATION}: it gives back a row that is not a generation: expected 0, found 10"],
        ),
    ],
)
def test_audit_reports_a_wrong_refund_of_a_generation(
    corrupted: str, messages: list[str], audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(corrupted)
    assert findings(audit) == [f"generation: {message}" for message in messages]


@pytest.mark.parametrize(
    ("corrupted", "message"),
    [
        (
            f"delete from public.transactions where '{HOLD}' in (id, refunds)",
            "it was captured without a ledger row: expected a ledger row, found nothing",
        ),
        (
            f"update public.transactions set amount = 21 * sign(amount) where '{HOLD}' in (id, refunds)",
            "it was captured for more than it held: expected -20, found -21",
        ),
        (
            f"update public.generation_holds set captured_at = null where id = '{HOLD}'",
            "it was not captured, but a ledger row has its id: expected nothing, found -10",
        ),
        (
            f"update public.generation_holds set captured_at = null, released_at = now() where id = '{HOLD}'",
            "it was not captured, but a ledger row has its id: expected nothing, found -10",
        ),
        (
            f"""
            delete from public.transactions where refunds = '{HOLD}';
            update public.transactions set amount = 10, type = 'PURCHASE' where id = '{HOLD}'
            """,
            "the ledger row of its id is not a generation: expected GENERATION, found PURCHASE",
        ),
        (
            f"update public.transactions set user_id = '{BOB}' where '{HOLD}' in (id, refunds)",
            f"the ledger row of its id is another user's: expected {ALICE}, found {BOB}",
        ),
    ],
)
def test_audit_reports_a_hold_that_contradicts_the_ledger(
    corrupted: str, message: str, audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(corrupted)
    assert findings(audit) == [f"hold: user {ALICE}, row {HOLD}: {message}"]


@pytest.mark.parametrize("state", ["open", "expired", "captured", "released"])
def test_audit_of_holds_in_every_state_finds_nothing(audit: Audit, settled: Worker, state: str) -> None:
    hold(settled, NEW, state)
    assert findings(audit) == []


def test_audit_of_a_debt_by_a_capture_finds_nothing(audit: Audit, settled: Worker) -> None:
    """A refund took the credits of an open hold, and its capture left a debt."""
    hold(settled, NEW, "open")
    record(settled, refund("re_2", "pi_1", 700))
    capture(settled, NEW)
    assert findings(audit) == []


def test_audit_counts_parked_events_by_reason(audit: Audit, admin: Admin) -> None:
    for event_id, reason, age in (
        ("evt_1", "unreadable", 1),
        ("evt_2", "unreadable", 50),
        ("evt_3", "missing_user", 2),
    ):
        admin.execute(
            "insert into billing.parked_events (event_id, event_type, reason, payload, parked_at)"
            " values (%s, 'some.type', %s, '{}', now() - %s * interval '1 hour')",
            [event_id, reason, age],
        )
    unreadable, missing = reversed(findings(audit))
    assert unreadable.startswith("parked: reason unreadable, oldest 2 days 02:00:0")
    assert unreadable.endswith(": events are parked, see webhook parked: expected 0, found 2")
    assert missing.startswith("parked: reason missing_user, oldest 02:00:0")


def test_audit_reports_a_manual_sale_entered_after_its_refund(audit: Audit, settled: Worker) -> None:
    record(settled, refund("re_2", "pi_2", 100))
    add(settled, BOB, 100, stripe_id="pi_2", payment_id="pi_2", money_amount="1000", currency="usd")
    message = "credits do not match the facts: expected 90, found 100"
    assert findings(audit) == [f"settlement: payment pi_2, user {BOB}, rows pi_2: {message}"]


@pytest.mark.parametrize("payment_id", ["pi_typo", "pi_1"])
def test_audit_names_the_two_ids_of_a_mistyped_manual_purchase(audit: Audit, settled: Worker, payment_id: str) -> None:
    """The other id may be unknown, or be that of another sale."""
    add(settled, BOB, 100, stripe_id="pi_2", payment_id=payment_id, money_amount="1000", currency="usd")
    message = f"its payment_id and its stripe_id name two sales: expected {payment_id}, found pi_2"
    assert findings(audit) == [f"row: payment {payment_id}, user {BOB}, row pi_2: {message}"]


@pytest.mark.parametrize("names", ["a", "abc"])
def test_audit_reports_rows_of_an_invoice_with_a_missing_link(
    names: str, audit: Audit, settled: Worker, corrupt: Corrupt
) -> None:
    record(settled, sale("in_1", BOB, version=2))
    for name in names:
        record(settled, LINK | {"payment_id": f"pi_{name}"})
        record(settled, refund(f"re_{name}", f"pi_{name}", 100))
    assert findings(audit) == []
    corrupt("delete from billing.payment_links where payment_id = 'pi_a'")
    kept = 100 - 10 * len(names)
    assert findings(audit) == [
        (
            f"settlement: payment in_1, user {BOB}, rows {' '.join(['in_1', *(f're_{name}' for name in names)])}:"
            f" credits do not match the facts: expected {kept + 10}, found {kept}"
        ),
        (
            f"row: payment in_1, user {BOB}, row re_a:"
            " its payment_id and its stripe_id name two sales: expected in_1, found pi_a"
        ),
    ]
