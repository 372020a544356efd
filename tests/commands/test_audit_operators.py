"""`webhook audit` follows what operators said, and reports what was done behind their functions."""

from __future__ import annotations

import psycopg
import pytest

from support.audit import Audit, Corrupt, Worker, findings
from support.databases import Database
from support.operators import adjust, assign, withdraw
from support.roles import ALICE, BOB, add, connected, record, refund, sale

ID = "99999999-0000-4000-8000-000000000009"


@pytest.fixture
def operator(database: Database, settled: Worker) -> psycopg.Connection:
    """The operator's connection. Alice bought 100 credits as pi_1, and 25 were refunded."""
    assert settled
    with connected(database, "billing_operator") as operator:
        yield operator


def test_audit_of_operators_actions_finds_nothing(audit: Audit, operator: psycopg.Connection, settled: Worker) -> None:
    """Moved, corrected, withdrawn and completed sales, two that became one, and adjustments."""
    assign(operator, "pi_1", BOB, 40, allow_debt=True)
    record(settled, refund("re_2", "pi_1", 100))
    record(settled, sale("pi_2", None))
    record(settled, sale("in_2", ALICE, version=2))
    assign(operator, "pi_2", ALICE)
    assign(operator, "in_2", credits_=7)
    record(settled, {"kind": "link", "id": "inpay_1", "invoice_id": "in_2", "payment_id": "pi_2"})
    withdraw(operator, "pi_1", 1, allow_debt=True)
    adjust(operator, ALICE, 5, description="Thanks")
    adjust(operator, BOB, -5, allow_debt=True)
    assert findings(audit) == []


def test_audit_of_erased_users_actions_finds_nothing(
    audit: Audit, operator: psycopg.Connection, admin: psycopg.Connection
) -> None:
    assign(operator, "pi_1", BOB, allow_debt=True)
    adjust(operator, BOB, 5, description="Thanks")
    adjust(operator, ALICE, 5)
    admin.execute("select billing.erase_user(%s), billing.erase_user(%s)", [BOB, ALICE])
    assert findings(audit) == []


def test_audit_reports_a_sale_that_ignores_its_assignment(
    audit: Audit, operator: psycopg.Connection, corrupt: Corrupt
) -> None:
    """The check is written from the rule, not with the functions that settle."""
    assign(operator, "pi_1", BOB, allow_debt=True)
    corrupt("delete from public.transactions where event_id = 'action:1'")
    message = "credits do not match the facts: expected"
    assert sorted(findings(audit)) == [
        f"settlement: payment pi_1, user {ALICE}, rows pi_1 re_1: {message} 0, found 75",
        f"settlement: payment pi_1, user {BOB}, rows nothing: {message} 75, found 0",
    ]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "delete from public.transactions where id = '{id}'",
            "action 1, user {user}: the ledger row of an adjustment is missing: expected 5, found 0",
        ),
        (
            "update public.transactions set amount = 500 where id = '{id}'",
            "action 1, user {user}: the ledger row of an adjustment differs from its action: expected 5, found 500",
        ),
        (
            "delete from billing.operator_actions",
            "row {id}, user {user}: a ledger row that an operator caused, without an action: expected 0, found 5",
        ),
        (
            "insert into billing.assignments (number, payment_id, credits) values (7, 'pi_1', 100)",
            "action 7, payment pi_1: an assignment without its action: expected 0, found 100",
        ),
    ],
    ids=["missing row", "other amount", "missing action", "assignment by hand"],
)
def test_audit_reports_what_bypassed_the_operators_functions(
    audit: Audit, operator: psycopg.Connection, corrupt: Corrupt, statement: str, problem: str
) -> None:
    adjust(operator, ALICE, 5, id=ID, description="Thanks")
    corrupt(statement.format(id=ID))
    assert findings(audit) == [f"operator: {problem.format(id=ID, user=ALICE)}"]


def test_audit_reports_a_row_that_names_no_action(audit: Audit, settled: Worker) -> None:
    add(settled, BOB, 5, type="REFUND", stripe_id="pi_1:merge", payment_id="pi_1", event_id="action:99")
    lines = [line for line in findings(audit) if line.startswith("operator")]
    message = "a ledger row that an operator caused, without an action: expected 0, found 5"
    assert lines == [f"operator: row pi_1:merge, user {BOB}: {message}"]
