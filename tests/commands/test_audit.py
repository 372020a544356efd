"""`webhook audit` on ledgers without findings, its output and its exit codes."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.audit import LINK, LONG_AGO, Audit, Corrupt, Worker, findings
from support.databases import Database
from support.delivery import deliver_to
from support.model import events_of, new_id
from support.operators import discard
from support.recorded import refund_event, session_event
from support.roles import ALICE, BOB, add, balance, record, refund, sale
from support.shop import Books
from support.strategies import deliveries, sales, stories
from webhook.audit import checks as audit_module
from webhook.audit.checks import CHECKS, REMEDIES
from webhook.ledger.ledger import Ledger
from webhook.ledger.queries import check

Admin = psycopg.Connection[Any]

# Ledgers without findings


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate]
)
@given(data=st.data())
def test_audit_of_any_history_finds_nothing(
    audit: Audit, database: Database, admin: Admin, data: st.DataObject
) -> None:
    query = "insert into auth.users (id) select gen_random_uuid() from generate_series(1, 3) returning id::text"
    users = [user for (user,) in admin.execute(query)]
    history = data.draw(st.lists(sales(users), min_size=1, max_size=4))
    with closing(Ledger(database.url)) as ledger:
        for event in data.draw(deliveries(events_of(history))):
            deliver_to(ledger, event)
    admin.execute(LONG_AGO)
    assert findings(audit) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate]
)
@given(data=st.data())
def test_audit_of_any_story_of_claims_finds_nothing(
    audit: Audit, admin: Admin, ledger: Ledger, data: st.DataObject
) -> None:
    """It derives the users of sales on its own. Sales without a user are parked."""
    books = Books(admin, ledger)
    books.open()
    story = data.draw(stories(books.users[:2], str(uuid4()), books.users[2]))
    for step in data.draw(st.permutations(story.steps())):
        books.take(step)
    admin.execute(LONG_AGO)
    assert [line for line in findings(audit) if not line.startswith("parked: ")] == []


def test_audit_during_live_traffic_finds_nothing(audit: Audit, database: Database, worker: Worker) -> None:
    del worker
    done = threading.Event()

    def sell(ledger: Ledger) -> None:
        for _ in range(40):
            payment = new_id("pi")
            deliver_to(ledger, session_event(event_id=new_id("evt"), payment_intent=payment, user_id=ALICE))
            deliver_to(
                ledger, refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment, amount=250)
            )

    def sell_all() -> None:
        with closing(Ledger(database.url)) as ledger, ThreadPoolExecutor(4) as pool:
            list(pool.map(sell, [ledger] * 4))
        done.set()

    with ThreadPoolExecutor(1) as seller:
        sold = seller.submit(sell_all)
        audits = 0
        while not done.is_set() and not sold.done():
            assert findings(audit) == []
            audits += 1
        sold.result()
    assert audits > 3


def test_audit_of_a_settled_ledger_finds_nothing(audit: Audit, settled: Worker) -> None:
    del settled
    assert findings(audit) == []


def test_audit_of_money_corrected_by_a_later_fact_finds_nothing(audit: Audit, settled: Worker) -> None:
    """The later fact is from a source closer to the money, and its amount or currency differs."""
    record(settled, sale("pi_1", ALICE, version=3, money_amount=1100, currency="eur"))
    record(settled, sale("pi_2", BOB))
    record(settled, sale("pi_2", BOB, version=3, money_amount=500))
    assert [line for line in findings(audit) if not line.startswith("currency")] == []


@pytest.mark.parametrize("is_discarded", [False, True])
def test_audit_ignores_a_sale_with_a_parked_or_discarded_event(
    *, is_discarded: bool, audit: Audit, settled: Worker, corrupt: Corrupt, admin: psycopg.Connection[Any]
) -> None:
    """The event is parked under the invoice's id, and the sale has the id of its payment."""
    record(settled, LINK | {"payment_id": "pi_2"})
    record(settled, sale("pi_2", None))
    settled.execute("select billing.park('evt_2', 'some.type', 'missing_user', 'in_1', '{}')")
    if is_discarded:
        discard(admin, "evt_2")
    corrupt(LONG_AGO)
    assert not [line for line in findings(audit) if not line.startswith("parked")]


def test_audit_of_a_capture_without_metadata_finds_nothing(audit: Audit, settled: Worker, corrupt: Corrupt) -> None:
    record(settled, sale("pi_2", None, version=3, credits=None))
    corrupt(LONG_AGO)
    assert findings(audit) == []


@pytest.mark.parametrize(
    ("sold", "moved"),
    [({}, {"money_amount": 0, "version": 2}), ({"money_amount": 0}, {}), ({"paid": False}, {})],
    ids=["failed refund", "free sale", "unpaid sale"],
)
def test_audit_ignores_a_reversal_that_takes_no_credits(
    sold: dict[str, Any], moved: dict[str, Any], audit: Audit, settled: Worker
) -> None:
    """The reversal is in another currency than its sale."""
    record(settled, sale("pi_2", BOB, **sold))
    record(settled, refund("re_2", "pi_2", 1) | {"currency": "eur"} | moved)
    assert findings(audit) == []


def test_audit_of_settled_or_discarded_events_finds_nothing(
    audit: Audit, settled: Worker, admin: psycopg.Connection[Any]
) -> None:
    for event_id in ("evt_1", "evt_2"):
        settled.execute("select billing.park(%s, 'some.type', 'unreadable', null, '{}')", [event_id])
    settled.execute("select billing.resolve('evt_1')")
    discard(admin, "evt_2")
    assert findings(audit) == []


def test_audit_of_a_reversal_without_a_sale_finds_nothing(audit: Audit, worker: Worker) -> None:
    record(worker, refund("re_1", "pi_none", 250))
    assert findings(audit) == []


def test_audit_of_manual_entries_finds_nothing(audit: Audit, settled: Worker) -> None:
    by_hand = {"stripe_id": "pi_2", "payment_id": "pi_2", "money_amount": "1000", "currency": "usd"}
    add(settled, BOB, 100, **by_hand)
    add(settled, BOB, 20)
    add(settled, BOB, -5, type="REFUND")
    record(settled, refund("re_2", "pi_2", 100))
    assert findings(audit) == []


def test_audit_of_an_erased_users_sales_finds_nothing(audit: Audit, settled: Worker, admin: Admin) -> None:
    record(settled, sale("pi_1", BOB, version=3))
    admin.execute("select billing.erase_user(%s)", [BOB])
    assert admin.execute("select from public.transactions where payment_id = 'pi_1'").rowcount == 3
    assert findings(audit) == []


def test_audit_of_a_sale_linked_to_an_erased_one_finds_nothing(audit: Audit, settled: Worker, admin: Admin) -> None:
    record(settled, sale("in_1", BOB, version=2))
    record(settled, sale("pi_2", ALICE))
    record(settled, refund("re_2", "pi_2", 1) | {"currency": "eur"})
    admin.execute("select billing.erase_user(%s)", [BOB])
    for payment_id in ("pi_1", "pi_2"):
        record(settled, LINK | {"payment_id": payment_id})
    assert findings(audit) == []


@pytest.mark.parametrize(
    ("invoice", "intent", "kept"),
    [
        ({"user_id": None, "version": 2}, {"version": 1, "credits": 40}, 40),
        ({"version": 2}, {"version": 3, "credits": 40, "paid": False}, 100),
        ({"version": 2}, {"version": 3, "credits": 40}, 40),
        ({"version": 2}, {"version": 2, "credits": 40}, 100),
    ],
    ids=["the complete one counts", "then the paid one", "then the closest to the money", "then the smallest id"],
)
def test_audit_of_linked_payments_that_disagree_finds_nothing(
    invoice: dict[str, Any], intent: dict[str, Any], kept: int, audit: Audit, worker: Worker
) -> None:
    record(worker, sale("in_1", BOB, **invoice))
    record(worker, sale("pi_a", BOB, **intent))
    record(worker, LINK | {"payment_id": "pi_a"})
    assert (balance(worker, BOB), findings(audit)) == (kept, [])


# Output and exit codes


def test_audit_on_a_terminal_without_findings_prints_a_line(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del audit
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert audit_module.run(as_json=False)
    assert capsys.readouterr().out == "Nothing found.\n"


def test_audit_has_a_remedy_for_each_check() -> None:
    checks = {name for each in CHECKS for name in re.findall(r"'(\w+)' as check", check(each))}
    assert checks | {"stripe"} == set(REMEDIES)


def test_audit_on_a_terminal_prints_what_to_do(
    audit: Audit, corrupt: Corrupt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del audit
    corrupt("update billing.sales set paid = false")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert not audit_module.run(as_json=False)
    _, _, line = capsys.readouterr().out.splitlines()
    assert line == f"settlement: {REMEDIES['settlement']}"


def test_audit_as_json_prints_one_finding_per_line(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("update billing.sales set paid = false", f"update public.users set credits_balance = 1 where id = '{BOB}'")
    corrupt(f"update public.users set credits_balance = 1 where id = '{BOB}'", balances=False)
    result = audit("--json")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "check": "balance",
            "user_id": BOB,
            "problem": "balance is not the sum of its ledger rows",
            "expected": 0,
            "found": 1,
            "what_to_do": REMEDIES["balance"],
        },
        {
            "check": "settlement",
            "payment_id": "pi_1",
            "user_id": ALICE,
            "rows": ["pi_1", "re_1"],
            "problem": "credits of a sale that is not paid",
            "expected": 0,
            "found": 75,
            "what_to_do": REMEDIES["settlement"],
        },
    ]


def test_audit_as_json_without_findings_prints_nothing(audit: Audit, settled: Worker) -> None:
    del settled
    result = audit("--json")
    assert (result.stdout, result.exit_code) == ("", 0)


def test_audit_of_an_older_schema_exits_with_2(audit: Audit, admin: Admin) -> None:
    admin.execute(
        "create or replace function billing.schema_version() returns text language sql return '20261122000005'"
    )
    result = audit()
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr.startswith("webhook: schema 20261122000005, expected 2026")
    assert result.stderr.endswith(": run webhook migrate\n")


def test_audit_without_a_database_exits_with_2(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    result = audit()
    assert (result.stdout, result.exit_code, result.stderr.count("\n")) == ("", 2, 1)
    assert result.stderr.startswith("webhook: no connection: ")


def test_audit_with_a_failing_query_exits_with_2(audit: Audit, database: Database) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("revoke select on billing.parked_events from service_role")
    result = audit()
    assert (result.exit_code, result.stderr) == (2, "webhook: SQLSTATE 42501 InsufficientPrivilege\n")
