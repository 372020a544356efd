"""`webhook audit` prints nothing for a settled ledger, and a finding for each kind of corruption."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import pytest
from click.testing import Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.commands import invoke
from support.databases import Database
from support.delivery import deliver_to
from support.model import events_of, new_id
from support.recorded import refund_event, session_event
from support.roles import ALICE, BOB, add, balance, connected, record, refund, sale, sign_up
from support.strategies import deliveries, sales
from webhook.audit import checks as audit_module
from webhook.ledger.ledger import Ledger

Audit = Callable[..., Result]
Admin = psycopg.Connection[Any]
Corrupt = Callable[..., None]
Worker = psycopg.Connection[Any]

GENERATION = "dddddddd-0000-4000-8000-00000000000d"
LONG_AGO = "update billing.sales set recorded_at = now() - interval '10 minutes'"
LINK = {"kind": "link", "id": "inpay_1", "invoice_id": "in_1"}


@pytest.fixture
def audit(database: Database, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """`webhook audit` with its output on a pipe."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    return partial(invoke, "audit")


@pytest.fixture
def worker(database: Database, admin: Admin) -> Iterator[Worker]:
    """A connection as the worker to a ledger with two users."""
    sign_up(admin, ALICE, BOB)
    with connected(database, "service_role", login="webhook_worker") as worker:
        yield worker


@pytest.fixture
def shop(worker: Worker) -> Worker:
    """The worker's connection. Alice bought 100 credits, 25 were refunded, and a generation of 10 was refunded."""
    record(worker, sale("pi_1", ALICE))
    record(worker, refund("re_1", "pi_1", 250))
    add(worker, ALICE, -10, type="GENERATION", id=GENERATION)
    add(worker, ALICE, 10, type="REFUND", refunds=GENERATION)
    return worker


@pytest.fixture
def corrupt(database: Database, shop: Worker) -> Corrupt:
    """Run statements without triggers, foreign keys and grants, then by default set balances to the ledger's sums."""
    del shop

    def corrupt(*statements: str, balances: bool = True) -> None:
        with psycopg.connect(database.superuser_url) as connection:
            connection.execute("set session_replication_role = replica")
            for statement in statements:
                connection.execute(statement)
            if balances:
                connection.execute(
                    "update public.users set credits_balance ="
                    " (select coalesce(sum(amount), 0) from public.transactions where user_id = users.id)"
                )

    return corrupt


def findings(audit: Audit) -> list[str]:
    """Return the lines, and check that the exit code is 1 if there are any."""
    result = audit()
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (1 if lines else 0, "")
    return lines


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


def test_audit_of_a_settled_ledger_finds_nothing(audit: Audit, shop: Worker) -> None:
    del shop
    assert findings(audit) == []


def test_audit_on_a_terminal_without_findings_prints_a_line(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del audit
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert audit_module.run(as_json=False)
    assert capsys.readouterr().out == "Nothing found.\n"


def test_audit_reports_a_balance_that_differs_from_its_rows(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.users set credits_balance = 80 where id = '{ALICE}'", balances=False)
    assert findings(audit) == [
        f"balance: user {ALICE}: balance is not the sum of its ledger rows: expected 75, found 80"
    ]


def test_audit_reports_a_balance_without_ledger_rows(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.users set credits_balance = 80 where id = '{BOB}'", balances=False)
    assert findings(audit) == [f"balance: user {BOB}: balance is not the sum of its ledger rows: expected 0, found 80"]


def test_audit_reports_rows_of_a_table_inheriting_the_ledger(audit: Audit, shop: Worker, admin: Admin) -> None:
    """No trigger sees the rows that the owner adds there, but the ledger's sums include them."""
    assert shop
    admin.execute("create table public.mine () inherits (public.transactions)")
    admin.execute("insert into public.mine (user_id, amount, type) values (%s, 5, 'PURCHASE')", [BOB])
    assert findings(audit) == [f"balance: user {BOB}: balance is not the sum of its ledger rows: expected 5, found 0"]


def test_audit_reports_rows_of_a_missing_user(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"delete from public.users where id = '{ALICE}'")
    assert findings(audit) == [
        f"balance: user {ALICE}: ledger rows of a user that does not exist: expected 75, found nothing",
        f"settlement: payment pi_1, user {ALICE}: credits of a sale without a user or credits: expected 0, found 75",
    ]


@pytest.mark.parametrize(
    ("corrupted", "expected", "found"),
    [
        ("update public.transactions set amount = 90 where stripe_id = 'pi_1'", 75, 65),
        ("delete from public.transactions where stripe_id = 're_1'", 75, 100),
        ("delete from public.transactions where payment_id = 'pi_1'", 75, 0),
        ("update billing.sales set credits = 200", 150, 75),
        ("update billing.sales set money_amount = 250", 0, 75),
        ("update billing.sales set money_amount = 0", 100, 75),
        ("update billing.reversals set money_amount = 999", 1, 75),
        ("update billing.reversals set money_amount = 2000", 0, 75),
    ],
)
def test_audit_reports_credits_that_do_not_match_the_facts(
    corrupted: str, expected: int, found: int, audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(corrupted)
    message = f"credits do not match the facts: expected {expected}, found {found}"
    lines = [line for line in findings(audit) if "its money matches no fact" not in line]
    assert lines == [f"settlement: payment pi_1, user {ALICE}: {message}"]


def test_audit_reports_credits_of_an_unpaid_sale(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("update billing.sales set paid = false")
    message = "credits of a sale that is not paid: expected 0, found 75"
    assert findings(audit) == [f"settlement: payment pi_1, user {ALICE}: {message}"]


def test_audit_reports_both_users_of_a_misassigned_sale(audit: Audit, corrupt: Corrupt) -> None:
    corrupt(f"update public.transactions set user_id = '{BOB}' where stripe_id = 'pi_1'")
    message = "credits do not match the facts: expected"
    assert sorted(findings(audit)) == [
        f"settlement: payment pi_1, user {ALICE}: {message} 75, found -25",
        f"settlement: payment pi_1, user {BOB}: {message} 0, found 100",
    ]


def test_audit_reports_rows_of_a_sale_without_facts(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("delete from billing.sales")
    message = "no facts of its sale are known: expected 0, found"
    assert sorted(findings(audit)) == [
        f"row: payment pi_1, user {ALICE}, row pi_1: {message} 100",
        f"row: payment pi_1, user {ALICE}, row re_1: {message} -25",
    ]


def test_audit_reports_a_row_of_an_unknown_refund(audit: Audit, corrupt: Corrupt) -> None:
    corrupt("delete from billing.reversals")
    assert findings(audit) == [
        f"settlement: payment pi_1, user {ALICE}: credits do not match the facts: expected 100, found 75",
        f"row: payment pi_1, user {ALICE}, row re_1: its cause is not a fact of its sale: expected pi_1, found re_1",
    ]


def test_audit_reports_a_purchase_with_another_sales_id(audit: Audit, shop: Worker, corrupt: Corrupt) -> None:
    record(shop, sale("pi_2", ALICE, paid=False))
    corrupt("update public.transactions set stripe_id = 'pi_2' where stripe_id = 'pi_1'")
    assert findings(audit) == [
        f"row: payment pi_1, user {ALICE}, row pi_2: its cause is not a fact of its sale: expected pi_1, found pi_2"
    ]


def test_audit_reports_a_manual_purchase_without_its_money(audit: Audit, shop: Worker) -> None:
    """Refunds of this purchase could not be settled."""
    add(shop, BOB, 100, stripe_id="pi_2", payment_id="pi_2")
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
    kind: str, amount: int, columns: dict[str, str], missing: str, audit: Audit, shop: Worker
) -> None:
    row = add(shop, ALICE, amount, type=kind, event_id="evt_made_up", **columns)
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


def test_audit_of_money_corrected_by_a_later_fact_finds_nothing(audit: Audit, shop: Worker) -> None:
    """The later fact is from a source closer to the money, and its amount or currency differs."""
    record(shop, sale("pi_1", ALICE, version=3, money_amount=1100, currency="eur"))
    record(shop, sale("pi_2", BOB))
    record(shop, sale("pi_2", BOB, version=3, money_amount=500))
    assert [line for line in findings(audit) if not line.startswith("currency")] == []


UNSETTLED = "a paid sale is not settled, and no event of it is parked: expected a ledger row or a parked event"


@pytest.mark.parametrize("missing", [{"user_id": None}, {"credits": None}])
def test_audit_reports_a_paid_sale_neither_settled_nor_parked(
    missing: dict[str, Any], audit: Audit, shop: Worker, corrupt: Corrupt
) -> None:
    record(shop, sale("pi_2", BOB) | missing)
    assert findings(audit) == []
    corrupt(LONG_AGO)
    assert findings(audit) == [f"settlement: payment pi_2: {UNSETTLED}, found nothing"]


@pytest.mark.parametrize("end", ["select 1", "select billing.discard(array['evt_2'], 'Ann', 'a test')"])
def test_audit_ignores_a_sale_with_a_parked_or_discarded_event(
    end: str, audit: Audit, shop: Worker, corrupt: Corrupt
) -> None:
    """The event is parked under the invoice's id, and the sale has the id of its payment."""
    record(shop, LINK | {"payment_id": "pi_2"})
    record(shop, sale("pi_2", None))
    shop.execute("select billing.park('evt_2', 'some.type', 'missing_user', 'in_1', '{}')")
    shop.execute(end)
    corrupt(LONG_AGO)
    assert not [line for line in findings(audit) if not line.startswith("parked")]


def test_audit_of_a_capture_without_metadata_finds_nothing(audit: Audit, shop: Worker, corrupt: Corrupt) -> None:
    record(shop, sale("pi_2", None, version=3, credits=None))
    corrupt(LONG_AGO)
    assert findings(audit) == []


def test_audit_reports_a_reversal_in_another_currency(audit: Audit, shop: Worker) -> None:
    record(shop, refund("re_2", "pi_1", 1) | {"currency": "eur"})
    message = "a reversal in another currency than its sale took all its credits: expected usd, found eur"
    assert findings(audit) == [f"currency: payment pi_1, row re_2: {message}"]


@pytest.mark.parametrize(
    ("sold", "moved"),
    [({}, {"money_amount": 0, "version": 2}), ({"money_amount": 0}, {}), ({"paid": False}, {})],
    ids=["failed refund", "free sale", "unpaid sale"],
)
def test_audit_ignores_other_currencies_that_take_no_credits(
    sold: dict[str, Any], moved: dict[str, Any], audit: Audit, shop: Worker
) -> None:
    record(shop, sale("pi_2", BOB, **sold))
    record(shop, refund("re_2", "pi_2", 1) | {"currency": "eur"} | moved)
    assert findings(audit) == []


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
            "update public.transactions set amount = 11 where refunds is not null",
            [f"user {ALICE}, row {GENERATION}: it was not given back exactly once and in full: expected 10, found 11"],
        ),
        (
            f"update public.transactions set user_id = '{BOB}' where refunds is not null",
            [f"user {BOB}, row {GENERATION}: it was given back to another user: expected 0, found 10"],
        ),
        (
            "delete from public.transactions where type = 'GENERATION'",
            [f"user {ALICE}, row {GENERATION}: it gives back a row that is not a generation: expected 0, found 10"],
        ),
    ],
)
def test_audit_reports_a_wrong_refund_of_a_generation(
    corrupted: str, messages: list[str], audit: Audit, corrupt: Corrupt
) -> None:
    corrupt(corrupted)
    assert findings(audit) == [f"generation: {message}" for message in messages]


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


def test_audit_of_settled_or_discarded_events_finds_nothing(audit: Audit, shop: Worker) -> None:
    for event_id in ("evt_1", "evt_2"):
        shop.execute("select billing.park(%s, 'some.type', 'unreadable', null, '{}')", [event_id])
    shop.execute("select billing.resolve('evt_1'), billing.discard(array['evt_2'], 'Ann', 'a test')")
    assert findings(audit) == []


def test_audit_of_a_reversal_without_a_sale_finds_nothing(audit: Audit, worker: Worker) -> None:
    record(worker, refund("re_1", "pi_none", 250))
    assert findings(audit) == []


def test_audit_of_manual_entries_finds_nothing(audit: Audit, shop: Worker) -> None:
    by_hand = {"stripe_id": "pi_2", "payment_id": "pi_2", "money_amount": "1000", "currency": "usd"}
    add(shop, BOB, 100, **by_hand)
    add(shop, BOB, 20)
    add(shop, BOB, -5, type="REFUND")
    record(shop, refund("re_2", "pi_2", 100))
    assert findings(audit) == []


def test_audit_reports_a_manual_sale_entered_after_its_refund(audit: Audit, shop: Worker) -> None:
    record(shop, refund("re_2", "pi_2", 100))
    add(shop, BOB, 100, stripe_id="pi_2", payment_id="pi_2", money_amount="1000", currency="usd")
    message = "credits do not match the facts: expected 90, found 100"
    assert findings(audit) == [f"settlement: payment pi_2, user {BOB}: {message}"]


def test_audit_of_an_erased_users_sales_finds_nothing(audit: Audit, shop: Worker, admin: Admin) -> None:
    record(shop, sale("pi_1", BOB, version=3))
    admin.execute("select billing.erase_user(%s)", [BOB])
    assert admin.execute("select from public.transactions where payment_id = 'pi_1'").rowcount == 3
    assert findings(audit) == []


def test_audit_of_a_sale_linked_to_an_erased_one_finds_nothing(audit: Audit, shop: Worker, admin: Admin) -> None:
    record(shop, sale("in_1", BOB, version=2))
    record(shop, sale("pi_2", ALICE))
    record(shop, refund("re_2", "pi_2", 1) | {"currency": "eur"})
    admin.execute("select billing.erase_user(%s)", [BOB])
    for payment_id in ("pi_1", "pi_2"):
        record(shop, LINK | {"payment_id": payment_id})
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


@pytest.mark.parametrize("names", ["a", "abc"])
def test_audit_reports_rows_of_an_invoice_with_a_missing_link(
    names: str, audit: Audit, shop: Worker, corrupt: Corrupt
) -> None:
    record(shop, sale("in_1", BOB, version=2))
    for name in names:
        record(shop, LINK | {"payment_id": f"pi_{name}"})
        record(shop, refund(f"re_{name}", f"pi_{name}", 100))
    assert findings(audit) == []
    corrupt("delete from billing.payment_links where payment_id = 'pi_a'")
    kept = 100 - 10 * len(names)
    assert findings(audit) == [
        f"settlement: payment in_1, user {BOB}: credits do not match the facts: expected {kept + 10}, found {kept}",
        f"row: payment in_1, user {BOB}, row re_a: its cause is not a fact of its sale: expected in_1, found pi_a",
    ]


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
        },
        {
            "check": "settlement",
            "payment_id": "pi_1",
            "user_id": ALICE,
            "problem": "credits of a sale that is not paid",
            "expected": 0,
            "found": 75,
        },
    ]


def test_audit_as_json_without_findings_prints_nothing(audit: Audit, shop: Worker) -> None:
    del shop
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
