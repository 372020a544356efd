"""Previews of actions: what they announce is what the actions then do, and they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.delivery import deliver_to
from support.generations import authorize, new_generation
from support.operators import new_id
from support.recorded import invoice_event, payment_intent_event, refund_event, session_event
from support.roles import ALICE, BOB, CAROL, sign_up
from webhook.actions.adjust import TooManyCreditsError, adjust, preview_adjustment
from webhook.actions.assign import NotAssignableError, Request, assign, prepare
from webhook.actions.assignment_preview import AssignmentPreview, preview_assignment
from webhook.explain.story import load_user
from webhook.ledger.errors import RuleError
from webhook.ledger.ledger import Ledger
from webhook.ledger.operator import Adjustment, Assigned, Operator, OperatorLedger

PAYMENT = "pi_1"
ANN = Operator("ann", "wrong user", "console")
Admin = psycopg.Connection[Any]
Deliver = Callable[[dict[str, Any]], str]


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    """Deliver an event and return its outcome. Alice and Bob have accounts."""
    sign_up(admin, ALICE, BOB)
    return lambda event: deliver_to(ledger, event).name


@pytest.fixture
def operators(database: Database) -> Iterator[OperatorLedger]:
    with closing(OperatorLedger(database.operator_url)) as operators:
        yield operators


def session(**fields: Any) -> dict[str, Any]:
    """Return a paid session of 100 credits for 10.00, for Alice unless the fields say otherwise."""
    return session_event(**{"user_id": ALICE, "payment_intent": PAYMENT, "amount": 1000, "customer": None} | fields)


def request(name: str, user: str | None = None, credits_: int | None = None, **fields: Any) -> Request:
    return Request(name, user, credits_, new_id(), **fields)


def preview(ledger: Ledger, asked: Request) -> AssignmentPreview:
    return preview_assignment(asked, ledger, ledger, lambda: None)


def perform(ledger: Ledger, operators: OperatorLedger, asked: Request) -> Assigned:
    prepared = prepare(asked, ledger, lambda: None)
    return assign(prepared.assignment, ANN, operators, allow_debt=True)


def everything(admin: Admin) -> list[Any]:
    """Return all rows that an action could change."""
    tables = ("public.transactions", "public.users", "billing.sales", "billing.parked_events", "billing.assignments")
    return [admin.execute(f"select * from {table} order by 1, 2").fetchall() for table in tables]


EVENTS = [
    (session(), PAYMENT, {"user": BOB}),
    (session(), PAYMENT, {"credits_": 300}),
    (session(), PAYMENT, {"user": BOB, "credits_": 30}),
    (session(user_id=None), None, {"user": BOB}),
    (session(user_id=BOB, credits="ten"), None, {"credits_": 7}),
    (session(user_id=None, credits="ten"), None, {"user": BOB, "credits_": 100}),
    (session(user_id=CAROL), None, {"user": BOB}),
    (session(user_id=CAROL), PAYMENT, {"user": BOB}),
    (session(user_id="order_1234"), None, {"user": BOB}),
    (payment_intent_event(id=PAYMENT, user_id=None, amount=1000), None, {"user": BOB}),
    (invoice_event(id="in_1", user_id=None, amount_paid=1000, customer=None), None, {"user": ALICE}),
    (session(user_id=None, credits="ten"), None, {"user": BOB}),
    (session(user_id=None, credits="ten"), None, {"credits_": 5}),
    (
        session_event("checkout.session.completed.unpaid", user_id="42", payment_intent=PAYMENT, customer=None),
        None,
        {"user": BOB},
    ),
]


@pytest.mark.parametrize("refunded", [0, 333])
@pytest.mark.parametrize(("event", "name", "asked"), EVENTS)
def test_preview_of_an_assignment_is_what_it_does(  # noqa: PLR0913, PLR0917 - fixtures
    deliver: Deliver,
    ledger: Ledger,
    operators: OperatorLedger,
    admin: Admin,
    event: dict[str, Any],
    name: str | None,
    asked: dict[str, Any],
    refunded: int,
) -> None:
    deliver(event)
    if refunded:
        deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=refunded))
    before, wanted = everything(admin), request(name or event["id"], asked.get("user"), asked.get("credits_"))
    expected = preview(ledger, wanted)
    assert everything(admin) == before
    done = perform(ledger, operators, wanted)
    assert [(each.user.id, each.credits) for each in expected.changes] == [
        (each.user_id, each.credits) for each in done.changes
    ]
    assert [each.user.balance + each.credits for each in expected.changes] == [each.balance for each in done.changes]
    assert (expected.is_paid, bool(expected.missing)) == (done.is_paid, bool(done.unsettled))


def test_preview_of_a_debt_names_the_user(deliver: Deliver, ledger: Ledger, admin: Admin) -> None:
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    [debt] = preview(ledger, request(PAYMENT, BOB)).debts
    assert (debt.user.id, debt.credits, debt.available) == (ALICE, -100, -60)


def test_preview_of_a_withdrawal_names_what_ends(deliver: Deliver, ledger: Ledger, operators: OperatorLedger) -> None:
    deliver(session())
    number = perform(ledger, operators, request(PAYMENT, BOB)).number
    ends = preview(ledger, request(PAYMENT, withdraws=True)).ends
    assert ends is not None
    assert (ends.number, ends.user_id) == (number, BOB)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request("evt_typo", BOB), "never parked: evt_typo"),
        (request("pi_typo", BOB), "No sale pi_typo is known."),
        (request(PAYMENT, CAROL), f"There is no user {CAROL}."),
        (request(PAYMENT, withdraws=True), f"no assignment of {PAYMENT} can be withdrawn"),
    ],
    ids=["event", "payment", "user", "withdrawal"],
)
def test_preview_of_an_impossible_assignment_is_refused(
    deliver: Deliver, ledger: Ledger, asked: Request, message: str
) -> None:
    deliver(session())
    with pytest.raises(NotAssignableError, match=message):
        preview(ledger, asked)


def test_preview_of_an_erased_sale_is_refused(deliver: Deliver, ledger: Ledger, admin: Admin) -> None:
    """The action would be refused, too."""
    deliver(session())
    admin.execute("select billing.erase_user(%s)", [ALICE])
    with pytest.raises(NotAssignableError, match=f"{PAYMENT} belonged to a user who was erased"):
        preview(ledger, request(PAYMENT, BOB))


def test_limit_of_an_action_counts_for_what_it_moves(
    deliver: Deliver, ledger: Ledger, operators: OperatorLedger, admin: Admin
) -> None:
    """Also if the operator names only the user: the credits are those of the sale."""
    deliver(session())
    before, prepared = everything(admin), prepare(request(PAYMENT, BOB), ledger, lambda: None)
    with pytest.raises(RuleError, match="One action may move 99 credits at most"):
        assign(prepared.assignment, ANN, operators, allow_debt=True, most_credits=99)
    assert everything(admin) == before


@pytest.mark.parametrize("amount", [-101, 101])
def test_limit_of_an_adjustment_is_kept(deliver: Deliver, operators: OperatorLedger, admin: Admin, amount: int) -> None:
    deliver(session())
    before = everything(admin)
    with pytest.raises(TooManyCreditsError, match="One action may move 100 credits at most"):
        adjust(Adjustment(new_id(), ALICE, amount), ANN, operators, allow_debt=True, most_credits=100)
    assert everything(admin) == before


@pytest.mark.parametrize(("amount", "makes_debt"), [(-40, False), (-41, True), (5, False)])
def test_preview_of_an_adjustment_is_what_it_does(  # noqa: PLR0913 - fixtures
    deliver: Deliver, ledger: Ledger, operators: OperatorLedger, admin: Admin, amount: int, *, makes_debt: bool
) -> None:
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    story = load_user(ledger, ALICE)
    assert story is not None
    expected = preview_adjustment(story.user, amount)
    assert expected.makes_debt is makes_debt
    done = adjust(Adjustment(new_id(), ALICE, amount), ANN, operators, allow_debt=makes_debt)
    assert done.balance == expected.new_balance
