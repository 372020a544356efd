"""billing.assign(): an operator's word about a sale counts before Stripe's, and can be withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.generations import authorize, new_generation, refused
from support.ledger_queries import wrong_balances
from support.operators import (
    ASSIGNMENT_MISMATCH,
    DEBT,
    ERASED_SALE,
    INVALID_ASSIGNMENT,
    INVALID_CREDITS,
    MISSING_TEXT,
    NOT_ASSIGNABLE,
    NOT_LATEST,
    TOO_MANY_CREDITS,
    UNKNOWN_PAYMENT,
    UNKNOWN_USER,
    actions,
    assign,
    new_id,
    withdraw,
)
from support.roles import ALICE, BOB, CAROL, balance, connected, execute, record, refund, sale, sign_up

LINK = {"kind": "link", "id": "inpay_1", "invoice_id": "in_1", "payment_id": "pi_1"}
CALLERS = 8


@pytest.fixture
def owner(admin: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection to a ledger with two users and no sale."""
    sign_up(admin, ALICE, BOB)
    return admin


@pytest.fixture
def operator(database: Database, owner: psycopg.Connection) -> Iterator[psycopg.Connection]:
    assert owner
    with connected(database, "billing_operator") as operator:
        yield operator


@pytest.fixture
def sold(owner: psycopg.Connection) -> psycopg.Connection:
    """The owner's connection. Alice has bought 100 credits for 10.00."""
    record(owner, sale("pi_1", ALICE))
    return owner


def balances(connection: psycopg.Connection) -> tuple[int, int]:
    """Return the balances of Alice and Bob, and check that they are the sums of their rows."""
    assert wrong_balances(connection) == []
    return balance(connection, ALICE), balance(connection, BOB)


def rows(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    columns = "user_id::text, amount, type::text, stripe_id, payment_id, money_amount, currency, event_id"
    return execute(connection, f"select {columns} from public.transactions order by created_at, stripe_id")


def parked(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return execute(
        connection, "select event_id, reason from billing.parked_events where resolved_at is null order by 1"
    )


def park(connection: psycopg.Connection, reason: str, payment_id: str | None = "pi_1") -> None:
    connection.execute("select billing.park('evt_1', 'some.type', %s, %s, '{}')", [reason, payment_id])


# What it does to the ledger


def test_assign_moves_a_settled_sale_to_another_user(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    done = assign(operator, "pi_1", BOB)
    assert balances(sold) == (0, 100)
    assert rows(sold)[1:] == [
        (ALICE, -100, "REFUND", "pi_1:merge", "pi_1", -1000, "usd", "action:1"),
        (BOB, 100, "REFUND", "pi_1:merge:2", "pi_1", 1000, "usd", "action:1"),
    ]
    assert done == {
        "number": 1,
        "is_new": True,
        "paid": True,
        "unsettled": None,
        "changes": [
            {"user_id": ALICE, "credits": -100, "balance": 0, "available": 0},
            {"user_id": BOB, "credits": 100, "balance": 100, "available": 100},
        ],
    }
    assert actions(sold) == [("assign", "pi_1", "wrong user", 100, 100)]


def test_refund_after_an_assignment_takes_from_its_user(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    record(sold, refund("re_1", "pi_1", 250))
    assign(operator, "pi_1", BOB)
    assert balances(sold) == (0, 75)
    record(sold, refund("re_2", "pi_1", 250))
    record(sold, refund("re_1", "pi_1", 0) | {"version": 2})
    assert balances(sold) == (0, 75)
    record(sold, refund("re_3", "pi_1", 750))
    assert balances(sold) == (0, 0)


def test_assigned_credits_replace_those_of_the_sale(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    record(sold, refund("re_1", "pi_1", 500))
    assign(operator, "pi_1", credits_=300)
    assert balances(sold) == (150, 0)
    assert rows(sold)[-1][:4] == (ALICE, 100, "REFUND", "pi_1:merge")


def test_assign_completes_a_sale_without_user(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Its first row is a PURCHASE, and its parked event is settled."""
    record(owner, sale("pi_1", None))
    park(owner, "missing_user")
    assign(operator, "pi_1", BOB)
    assert balances(owner) == (0, 100)
    assert rows(owner) == [(BOB, 100, "PURCHASE", "pi_1", "pi_1", 1000, "usd", "action:1")]
    assert parked(owner) == []


@pytest.mark.parametrize(
    "fact",
    [sale("pi_1", None), sale("pi_1", ALICE, credits=None), sale("pi_1", ALICE)],
    ids=["nobody", "none", "other"],
)
def test_redelivery_after_an_assignment_is_a_duplicate(
    operator: psycopg.Connection, owner: psycopg.Connection, fact: dict[str, Any]
) -> None:
    record(owner, fact)
    assign(operator, "pi_1", BOB, 7)
    assert record(owner, fact) == {"outcome": "duplicate"}
    assert balances(owner) == (0, 7)


def test_redelivery_that_names_an_unknown_user_is_a_duplicate(
    operator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """What it reports about money was recorded without its user."""
    record(owner, sale("pi_1", None))
    assign(operator, "pi_1", BOB)
    assert record(owner, sale("pi_1", CAROL)) == {"outcome": "duplicate"}
    assert balances(owner) == (0, 100)


def test_unpaid_sale_stays_ungranted_until_it_is_paid(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """The payment of a delayed method then goes to the assigned user."""
    record(owner, sale("pi_1", None, paid=False))
    park(owner, "missing_user")
    done = assign(operator, "pi_1", BOB, event_id="evt_1")
    assert (done["paid"], done["unsettled"], done["changes"], balances(owner)) == (False, None, [], (0, 0))
    assert parked(owner) == []
    assert record(owner, sale("pi_1", None, paid=False)) == {"outcome": "duplicate"}
    record(owner, sale("pi_1", None))
    assert balances(owner) == (0, 100)


def test_unpaid_sale_of_an_unknown_user_is_not_parked_again(
    operator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    record(owner, sale("pi_1", None, paid=False))
    assign(operator, "pi_1", BOB)
    assert record(owner, sale("pi_1", CAROL, paid=False)) == {"outcome": "duplicate"}
    assert record(owner, sale("pi_1", CAROL)) == {"outcome": "recorded"}
    assert balances(owner) == (0, 100)


def test_assigned_user_counts_before_claims(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """A claim that comes later moves nothing."""
    record(owner, sale("in_1", None, version=2, customer_id="cus_1", subscription_id="sub_1"))
    assign(operator, "in_1", BOB)
    claim = {"kind": "claim", "subscription_id": "sub_1", "customer_id": "cus_1", "user_id": ALICE, "level": 3}
    record(owner, claim | {"created": None})
    assert balances(owner) == (0, 100)
    withdraw(operator, "in_1", 1)
    assert balances(owner) == (100, 0)


def test_assignment_of_credits_alone_waits_for_a_user(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    record(owner, sale("pi_1", None, credits=None))
    park(owner, "missing_user")
    assert assign(operator, "pi_1", credits_=50)["unsettled"] == "missing_user"
    assert parked(owner) == [("evt_1", "missing_user")]
    assert assign(operator, "pi_1", BOB)["unsettled"] is None
    assert balances(owner) == (0, 50)
    assert parked(owner) == []


# Several assignments


def test_latest_assignment_counts_column_by_column(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB, 40)
    assign(operator, "pi_1", credits_=60)
    assert balances(sold) == (0, 60)
    assign(operator, "pi_1", ALICE)
    assert balances(sold) == (60, 0)


def test_assignments_of_linked_sales_count_for_both(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Two sales turn out to be one: for each column the latest number counts."""
    record(owner, sale("in_1", ALICE, version=2))
    record(owner, sale("pi_1", ALICE, version=3))
    assign(operator, "in_1", BOB, 40)
    assign(operator, "pi_1", credits_=60)
    assert balances(owner) == (60, 40)
    record(owner, LINK)
    assert balances(owner) == (0, 60)
    withdraw(operator, "in_1", 2)
    assert balances(owner) == (0, 40)


def test_assignment_of_one_id_counts_for_linked_ids(operator: psycopg.Connection, owner: psycopg.Connection) -> None:
    """The link may come before or after the assignment."""
    record(owner, sale("pi_1", ALICE), LINK)
    assign(operator, "in_1", BOB)
    assert balances(owner) == (0, 100)
    record(owner, sale("in_1", ALICE, version=2))
    assert balances(owner) == (0, 100)


# Withdrawals


def test_withdrawal_returns_to_what_the_facts_say(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB, 30)
    record(sold, refund("re_1", "pi_1", 500))
    assert balances(sold) == (0, 15)
    done = withdraw(operator, "pi_1", 1)
    assert done["unsettled"] is None
    assert balances(sold) == (50, 0)
    assert actions(sold)[-1] == ("withdraw", "pi_1", "wrong user", 50, 15)


def test_withdrawal_returns_to_the_assignment_before(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB)
    assign(operator, "pi_1", credits_=30)
    withdraw(operator, "pi_1", 2)
    assert balances(sold) == (0, 100)
    withdraw(operator, "pi_1", 1)
    assert balances(sold) == (100, 0)


@pytest.mark.parametrize(
    ("user", "credits_", "reason"), [(None, 100, "missing_user"), (ALICE, None, "missing_credits")]
)
def test_withdrawal_from_an_incomplete_sale_lists_it_again(
    operator: psycopg.Connection, owner: psycopg.Connection, user: str | None, credits_: int | None, reason: str
) -> None:
    """The payload was dropped when the sale was settled, so the sale itself is listed."""
    record(owner, sale("pi_1", user, credits=credits_))
    park(owner, reason)
    assign(operator, "pi_1", BOB, 100)
    assert parked(owner) == []
    assert withdraw(operator, "pi_1", 1)["unsettled"] == reason
    assert balances(owner) == (0, 0)
    assert parked(owner) == [("pi_1", reason)]
    assign(operator, "pi_1", ALICE, 70)
    assert balances(owner) == (70, 0)
    assert parked(owner) == []


@pytest.mark.parametrize("number", [1, 3, 4, 99])
def test_withdrawal_of_another_than_the_latest_is_refused(
    operator: psycopg.Connection, sold: psycopg.Connection, number: int
) -> None:
    """1 came before another one, 3 is withdrawn, and 4 is the withdrawal itself."""
    for user in (BOB, ALICE, BOB):
        assign(operator, "pi_1", user)
    withdraw(operator, "pi_1", 3)
    before = (balances(sold), actions(sold))
    with refused(NOT_LATEST):
        withdraw(operator, "pi_1", number)
    assert (balances(sold), actions(sold)) == before


def test_withdrawal_of_another_sales_assignment_is_refused(
    operator: psycopg.Connection, sold: psycopg.Connection
) -> None:
    record(sold, sale("pi_2", ALICE))
    assign(operator, "pi_2", BOB)
    with refused(NOT_LATEST):
        withdraw(operator, "pi_1", 1)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"payment_id": "pi_typo", "user": BOB}, UNKNOWN_PAYMENT),
        ({"payment_id": None, "user": BOB}, UNKNOWN_PAYMENT),
        ({"user": CAROL}, UNKNOWN_USER),
        ({}, INVALID_ASSIGNMENT),
        ({"user": BOB, "id": None}, INVALID_ASSIGNMENT),
        ({"user": BOB, "withdraws": 1}, INVALID_ASSIGNMENT),
        ({"credits_": 0}, INVALID_CREDITS),
        ({"credits_": -5}, INVALID_CREDITS),
        ({"credits_": 10**9 + 1}, INVALID_CREDITS),
        ({"user": BOB, "most_credits": 99}, TOO_MANY_CREDITS),
        ({"credits_": 40, "most_credits": 39}, TOO_MANY_CREDITS),
        ({"user": BOB, "reason": ""}, MISSING_TEXT),
        ({"user": BOB, "by": None}, MISSING_TEXT),
    ],
    ids=str,
)
def test_refused_assignment_changes_nothing(
    operator: psycopg.Connection, sold: psycopg.Connection, arguments: dict[str, Any], refusal: tuple[str, str]
) -> None:
    with refused(refusal):
        assign(operator, **{"payment_id": "pi_1"} | arguments)
    assert balances(sold) == (100, 0)
    assert execute(sold, "select * from billing.assignments") == actions(sold) == []


@pytest.mark.parametrize("reason", ["wrong_mode", "unreadable", "missing_api_key", "missing_object"])
def test_assignment_of_an_unread_event_is_refused(
    operator: psycopg.Connection, sold: psycopg.Connection, reason: str
) -> None:
    """Its facts about money are not known."""
    sold.execute("select billing.park('evt_1', 'some.type', %s, null, '{}')", [reason])
    with refused(NOT_ASSIGNABLE):
        assign(operator, "pi_1", BOB, event_id="evt_1")


def test_assignment_of_an_erased_sale_is_refused(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    execute(sold, f"select billing.erase_user('{ALICE}')")
    with refused(ERASED_SALE):
        assign(operator, "pi_1", BOB)


def test_assignment_of_an_erased_users_subscription_is_refused(
    operator: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """The invoice names nobody; the claim of the erased user still counts."""
    claim = {"kind": "claim", "subscription_id": "sub_1", "customer_id": None, "user_id": ALICE, "level": 3}
    record(owner, claim | {"created": None})
    record(owner, sale("in_1", None, version=2, subscription_id="sub_1"))
    execute(owner, f"select billing.erase_user('{ALICE}')")
    with refused(ERASED_SALE):
        assign(operator, "in_1", BOB)


# Debt


def test_assignment_that_makes_a_debt_is_refused(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    authorize(sold, ALICE, 60, new_generation())
    with refused(DEBT):
        assign(operator, "pi_1", BOB)
    assert balances(sold) == (40, 0)
    assert assign(operator, "pi_1", BOB, allow_debt=True)["changes"][0]["balance"] == -60
    assert balances(sold) == (-60, 100)


def test_held_credits_count_as_a_debt(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    execute(sold, f"select public.reserve_generation('{ALICE}', 1, '{new_generation()}')")
    with refused(DEBT):
        assign(operator, "pi_1", BOB)


def test_withdrawal_that_makes_a_debt_is_refused(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB)
    authorize(sold, BOB, 1, new_generation())
    with refused(DEBT):
        withdraw(operator, "pi_1", 1)
    assert balances(sold) == (0, 99)


def test_earlier_debt_of_the_receiver_is_no_obstacle(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    record(sold, sale("pi_2", BOB))
    authorize(sold, BOB, 100, new_generation())
    record(sold, refund("re_2", "pi_2", 1000))
    assign(operator, "pi_1", BOB, 20)
    assert balances(sold) == (0, -80)


# Repetitions and concurrency


def test_same_assignment_again_changes_nothing(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    given = new_id()
    assign(operator, "pi_1", BOB, id=given)
    assign(operator, "pi_1", ALICE)
    again = assign(operator, "pi_1", BOB, id=given)
    assert (again["number"], again["is_new"], again["changes"]) == (1, False, [])
    assert balances(sold) == (100, 0)


def test_same_withdrawal_again_changes_nothing(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    given = new_id()
    for user in (BOB, ALICE):
        assign(operator, "pi_1", user)
    assert [withdraw(operator, "pi_1", 2, id=given)["is_new"] for _ in range(2)] == [True, False]
    assert balances(sold) == (0, 100)


@pytest.mark.parametrize(
    "changed", [{"user": ALICE}, {"credits_": 5}, {"payment_id": "pi_2"}, {"reason": "another"}], ids=str
)
def test_same_id_with_other_values_is_refused(
    operator: psycopg.Connection, sold: psycopg.Connection, changed: dict[str, Any]
) -> None:
    record(sold, sale("pi_2", ALICE))
    values = {"payment_id": "pi_1", "user": BOB, "id": new_id()}
    assign(operator, **values)
    with refused(ASSIGNMENT_MISMATCH):
        assign(operator, **values | changed)
    assert balances(sold) == (100, 100)


def test_one_withdrawal_of_many_at_once_counts(database: Database, sold: psycopg.Connection) -> None:
    """Two operators withdraw what both have seen; none of them ends an earlier assignment by accident."""
    start = Barrier(CALLERS)
    with connected(database, "billing_operator") as operator:
        for user in (BOB, ALICE, BOB):
            assign(operator, "pi_1", user)

    def call(_: int) -> str | None:
        with connected(database, "billing_operator") as operator:
            start.wait()
            try:
                withdraw(operator, "pi_1", 3)
            except psycopg.Error as error:
                return error.sqlstate
            return None

    with ThreadPoolExecutor(CALLERS) as threads:
        results = list(threads.map(call, range(CALLERS)))
    assert sorted(results, key=str) == ["CR014"] * (CALLERS - 1) + [None]
    assert balances(sold) == (100, 0)


def test_assignments_beside_deliveries_end_in_one_state(database: Database, owner: psycopg.Connection) -> None:
    """Assignments, refunds and links of the same sales, all at once: nobody waits for ever, and no credits are lost."""
    start = Barrier(CALLERS)
    for number in range(4):
        record(owner, sale(f"in_{number}", ALICE, version=2))

    def call(caller: int) -> None:
        with connected(database, "billing_operator") as operator, connected(database, "service_role") as worker:
            start.wait()
            for number in range(4):
                assign(operator, f"in_{number}", (ALICE, BOB)[caller % 2], allow_debt=True)
                record(
                    worker, LINK | {"id": f"inpay_{number}", "invoice_id": f"in_{number}", "payment_id": f"pi_{number}"}
                )
                record(worker, refund(f"re_{caller}_{number}", f"pi_{number}", 50))

    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(call, range(CALLERS)))
    assert sum(balances(owner)) == 4 * (100 - CALLERS * 5)


# Erasure


def test_erasure_of_the_assigned_user_erases_the_sale(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB)
    execute(sold, f"select billing.erase_user('{BOB}')")
    assert record(sold, sale("pi_1", ALICE)) == {"outcome": "duplicate"}
    assert execute(sold, "select * from billing.assignments") == []
    assert actions(sold) == [("assign", None, None, 100, 100)]
    assert balance(sold, ALICE) == 0


def test_erasure_of_the_first_user_keeps_the_assignment(operator: psycopg.Connection, sold: psycopg.Connection) -> None:
    assign(operator, "pi_1", BOB)
    execute(sold, f"select billing.erase_user('{ALICE}')")
    record(sold, refund("re_1", "pi_1", 500))
    assert balance(sold, BOB) == 50
    assert actions(sold) == [("assign", "pi_1", "wrong user", 100, 100)]


def test_erasure_removes_the_user_from_older_assignments(
    operator: psycopg.Connection, sold: psycopg.Connection
) -> None:
    """The credits that were assigned beside still count."""
    assign(operator, "pi_1", BOB, 30)
    assign(operator, "pi_1", ALICE)
    execute(sold, f"select billing.erase_user('{BOB}')")
    assert execute(sold, "select number, user_id::text, credits from billing.assignments order by 1") == [
        (1, None, 30),
        (2, ALICE, None),
    ]
    assert actions(sold)[0][:3] == ("assign", None, None)
    assert BOB not in str(execute(sold, "select * from billing.operator_actions"))
    record(sold, refund("re_1", "pi_1", 500))
    assert balance(sold, ALICE) == 15
