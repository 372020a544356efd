"""``webhook assign``: what it records of a parked event, what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import Result

from support.commands import WEBHOOK, invoke
from support.databases import Database
from support.delivery import deliver_to
from support.generations import authorize, new_generation
from support.operators import actions
from support.recorded import invoice_event, payment_intent_event, refund_event, session_event
from support.roles import ALICE, BOB, CAROL, balance, sign_up
from webhook.ledger.ledger import Ledger
from webhook.settings import child_environment

ID = "99999999-0000-4000-8000-000000000009"
EVENT = session_event()["id"]
PAYMENT = "pi_1"
Admin = psycopg.Connection[Any]
Assign = Callable[..., Result]
Deliver = Callable[[dict[str, Any]], str]


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    """Deliver an event and return its outcome. Alice and Bob have accounts."""
    sign_up(admin, ALICE, BOB)
    return lambda event: deliver_to(ledger, event).name


@pytest.fixture
def assign(database: Database, monkeypatch: pytest.MonkeyPatch) -> Assign:
    """Run the command as an operator, with a reason, on a pipe."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("OPERATOR_DATABASE_URL", database.operator_url)
    monkeypatch.setenv("LOG_FORMAT", "json")
    for name in ("STRIPE_API_KEY", "STRIPE_LIVEMODE"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **options: invoke("assign", *arguments, "--reason", "wrong user", **options)


def session(**fields: Any) -> dict[str, Any]:
    """Return a paid session of 100 credits for 10.00, for Alice unless the fields say otherwise."""
    return session_event(**{"user_id": ALICE, "payment_intent": PAYMENT, "amount": 1000, "customer": None} | fields)


def parked(admin: Admin) -> list[tuple[Any, ...]]:
    return admin.execute("select event_id, reason from billing.parked_events where resolved_at is null").fetchall()


def balances(admin: Admin) -> tuple[int, int]:
    return balance(admin, ALICE), balance(admin, BOB)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    variables = child_environment(environment, without=("DATABASE_", "OPERATOR_", "STRIPE_"))
    command = [WEBHOOK, "assign", *arguments, "--reason", "a typo"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


# Parked events


@pytest.mark.parametrize(
    ("event", "reason", "options"),
    [
        (session(user_id=None), "missing_user", ("--user", BOB)),
        (session(user_id=BOB, credits="ten"), "invalid_credits", ("--credits", "100")),
        (session(user_id=None, credits="ten"), "missing_user", ("--user", BOB, "--credits", "100")),
        (session(user_id=BOB, credits=None), "missing_credits", ("--credits", "100")),
        (session(user_id=CAROL), "unknown_user", ("--user", BOB)),
        (session(user_id="order_1234"), "unknown_user", ("--user", BOB)),
        (payment_intent_event(id=PAYMENT, user_id=None, amount=1000), "missing_user", ("--user", BOB)),
        (invoice_event(id=PAYMENT, user_id=None, amount_paid=1000, customer=None), "missing_user", ("--user", BOB)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_assign_of_a_parked_event_grants_it_once(  # noqa: PLR0913, PLR0917 - fixtures
    deliver: Deliver, assign: Assign, admin: Admin, event: dict[str, Any], reason: str, options: tuple[str, ...]
) -> None:
    """Also if its own user or credits are unusable. Its redelivery is a duplicate, and a refund takes its share."""
    assert deliver(event) == "parked"
    assert parked(admin) == [(event["id"], reason)]
    result = assign(event["id"], *options)
    assert (result.exit_code, parked(admin), balances(admin)) == (0, [], (0, 100))
    assert deliver(event) == deliver({**event, "id": "evt_again"}) == "duplicate"
    assert (parked(admin), balances(admin)) == ([], (0, 100))
    if event["type"] != "invoice.paid":
        deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=500))
        assert balances(admin) == (0, 50)


def test_assign_of_an_ambiguous_subscription_grants_it(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    """Two sessions name different users for one subscription, and its invoice names nobody."""
    for user, name in ((ALICE, "cs_1"), (BOB, "cs_2")):
        started = {"id": name, "event_id": f"evt_{name}", "user_id": user, "subscription": "sub_1", "customer": "cus_1"}
        deliver(session_event("checkout.session.completed.subscription", **started))
    event = invoice_event(id="in_1", user_id=None, subscription="sub_1", customer="cus_1")
    assert deliver(event) == "parked"
    assert parked(admin) == [(event["id"], "ambiguous_customer")]
    assert assign(event["id"], "--user", BOB).exit_code == 0
    assert (balances(admin), parked(admin)) == ((0, 100), [])


def test_assign_of_an_unpaid_event_waits_for_the_payment(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    unpaid = session_event("checkout.session.completed.unpaid", user_id="42", payment_intent=PAYMENT, customer=None)
    deliver(unpaid)
    result = assign(unpaid["id"], "--user", BOB)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "unpaid   the sale grants its credits once it is paid"
    assert (parked(admin), balances(admin), deliver(unpaid)) == ([], (0, 0), "duplicate")
    paid = session_event(
        "checkout.session.async_payment_succeeded", user_id="42", payment_intent=PAYMENT, customer=None
    )
    assert deliver(paid) == "recorded"
    assert (parked(admin), balances(admin)) == ([], (0, 100))


def test_assign_of_half_of_what_is_missing_exits_with_1(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    event = session(user_id=None, credits="ten")
    deliver(event)
    result = assign(event["id"], "--credits", "70")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "missing  the sale is not settled: missing_user")
    assert assign(event["id"], "--user", BOB).exit_code == 0
    assert balances(admin) == (0, 70)


def test_assign_of_a_discarded_event_grants_it(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    """A discard by mistake can be undone while the payload is kept."""
    deliver(session(user_id=CAROL))
    invoke("discard", EVENT, "--reason", "a mistake")
    assert assign(EVENT, "--user", BOB).exit_code == 0
    assert balances(admin) == (0, 100)


@pytest.mark.parametrize("name", [PAYMENT, "cs_1"])
def test_assign_by_the_payment_of_a_parked_event_grants_it(
    deliver: Deliver, assign: Assign, admin: Admin, name: str
) -> None:
    """Also if nothing of the sale was recorded, and by its session."""
    deliver(session(user_id=CAROL, id="cs_1"))
    assert assign(name, "--user", BOB).exit_code == 0
    assert (balances(admin), parked(admin)) == ((0, 100), [])


# Sales that are settled


def test_assign_of_a_settled_payment_moves_it(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    deliver(session())
    result = assign(PAYMENT, "--user", BOB, "--id", ID)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"id       {ID}",
        "action   1",
        f"credits  -100 for {ALICE}, balance 0",
        f"credits  +100 for {BOB}, balance 100",
    ]
    assert balances(admin) == (0, 100)


def test_assign_by_the_event_of_a_settled_sale_moves_it(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    """The event was parked once, so its payment is known."""
    deliver(session(user_id=None))
    assign(EVENT, "--user", ALICE)
    assert assign(EVENT, "--user", BOB).exit_code == 0
    assert balances(admin) == (0, 100)


def test_assign_repeated_with_its_id_acts_once(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    deliver(session())
    assign(PAYMENT, "--user", BOB, "--id", ID)
    again = assign(PAYMENT, "--user", BOB, "--id", ID)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout.splitlines() == [f"id       {ID}", "action   1, done before"]
    assert len(actions(admin)) == 1


def test_assign_of_what_counts_already_changes_nothing(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    deliver(session())
    assert assign(PAYMENT, "--user", ALICE).stdout.splitlines()[-1] == "credits  unchanged"
    assert balances(admin) == (100, 0)


def test_assign_logs_a_warning_without_user_or_reason(deliver: Deliver, assign: Assign) -> None:
    deliver(session())
    logged = json.loads(assign(PAYMENT, "--user", BOB, "--by", "ann").stderr)
    del logged["time"]
    assert logged == {
        "message": "operator action",
        "level": "warning",
        "action": "assign",
        "number": 1,
        "by": "ann",
        "channel": "cli",
        "credits_given": 100,
        "credits_taken": 100,
    }


# Withdrawals


def test_withdraw_ends_the_latest_assignment(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    """It prints which one ends."""
    deliver(session())
    assign(PAYMENT, "--user", BOB, "--credits", "70")
    result = assign(PAYMENT, "--withdraw")
    assert (result.exit_code, balances(admin)) == (0, (100, 0))
    assert result.stdout.splitlines()[1] == f"ends     action 1: user {BOB}, 70 credits"
    assert actions(admin)[-1][:2] == ("withdraw", PAYMENT)


def test_withdraw_repeated_with_its_id_ends_one_assignment(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    """Without an answer, the same command with the id does not end an earlier assignment."""
    deliver(session())
    assign(PAYMENT, "--user", BOB)
    assign(PAYMENT, "--credits", "70")
    assert [assign(PAYMENT, "--withdraw", "--id", ID).exit_code for _ in range(2)] == [0, 0]
    assert balances(admin) == (0, 100)
    other = ID.replace("9", "8")
    assert [assign(PAYMENT, "--withdraw", "--id", other).exit_code for _ in range(2)] == [0, 0]
    assert balances(admin) == (100, 0)


def test_withdraw_from_an_incomplete_sale_parks_it_again(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    deliver(session(user_id=None))
    assign(EVENT, "--user", BOB)
    result = assign(PAYMENT, "--withdraw")
    assert (result.exit_code, balances(admin), parked(admin)) == (1, (0, 0), [(PAYMENT, "missing_user")])
    assert assign(PAYMENT, "--user", ALICE).exit_code == 0
    assert (balances(admin), parked(admin)) == ((100, 0), [])


def test_withdraw_without_an_assignment_is_refused(database: Database, deliver: Deliver) -> None:
    deliver(session())
    done = run(PAYMENT, "--withdraw", DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stderr) == (2, f"webhook: no assignment of {PAYMENT} can be withdrawn\n")


# Debts


@pytest.fixture
def spent(deliver: Deliver, admin: Admin) -> Admin:
    """The owner's connection. Alice has spent 60 of the 100 credits that she bought."""
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    return admin


def test_assign_with_a_debt_needs_the_option(database: Database, spent: Admin) -> None:
    """Without a terminal nobody can be asked. The message names the user and the debt."""
    done = run(PAYMENT, "--user", BOB, DATABASE_URL=database.operator_url)
    assert (done.returncode, balances(spent)) == (2, (40, 0))
    assert done.stderr == (
        f"webhook: This takes 100 credits from the user {ALICE}, who would have -60 available. "
        "Nothing was changed. Allow the debt to do it (--allow-debt, p_allow_debt).\n"
    )
    assert run(PAYMENT, "--user", BOB, "--allow-debt", DATABASE_URL=database.operator_url).returncode == 0
    assert balances(spent) == (-60, 100)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run on a terminal."""
    monkeypatch.setattr("webhook.commands.assign.is_interactive", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_assign_with_a_debt_on_a_terminal_asks_first(assign: Assign, spent: Admin) -> None:
    result = assign(PAYMENT, "--user", BOB, answer="n\n")
    assert (result.exit_code, balances(spent), actions(spent)) == (2, (40, 0), [])
    assert "who would have -60 available" in result.stderr
    assert assign(PAYMENT, "--user", BOB, answer="y\n").exit_code == 0
    assert balances(spent) == (-60, 100)


@pytest.mark.usefixtures("terminal")
def test_assign_without_a_debt_on_a_terminal_asks_nothing(deliver: Deliver, assign: Assign, admin: Admin) -> None:
    deliver(session())
    assert assign(PAYMENT, "--user", BOB).exit_code == 0
    assert balances(admin) == (0, 100)


# Refusals


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evt_typo", ("--user", BOB), "never parked: evt_typo: name the payment of its sale, pi_…, in_… or cs_…"),
        ("pi_typo", ("--user", BOB), "No sale pi_typo is known."),
        ("pi_\udcff", ("--user", BOB), "never parked: pi_\\udcff"),
        (PAYMENT, ("--user", CAROL), f"There is no user {CAROL}."),
    ],
    ids=["unknown event", "unknown payment", "not an id", "unknown user"],
)
def test_refused_assignment_prints_one_line(  # noqa: PLR0913, PLR0917 - fixtures
    database: Database, deliver: Deliver, admin: Admin, name: str, options: tuple[str, ...], message: str
) -> None:
    deliver(session())
    done = run(name, *options, DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"webhook: {message}")
    assert (balances(admin), actions(admin)) == ((100, 0), [])


@pytest.mark.parametrize(
    ("event", "reason", "remedy"),
    [
        (session() | {"livemode": True}, "wrong_mode", "STRIPE_LIVEMODE"),
        (session(currency=None), "unreadable", "upgrade"),
    ],
)
def test_assign_of_an_unread_event_names_the_remedy(  # noqa: PLR0913, PLR0917 - fixtures
    database: Database, deliver: Deliver, admin: Admin, event: dict[str, Any], reason: str, remedy: str
) -> None:
    """What it reports about money was not read."""
    deliver(event)
    done = run(event["id"], "--user", BOB, "--credits", "100", DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"webhook: {EVENT} is parked as {reason}: ")
    assert remedy in done.stderr
    assert parked(admin) == [(EVENT, reason)]


@pytest.mark.parametrize("reason", ["missing_api_key", "missing_object"])
def test_assign_of_an_event_that_lacks_an_object_is_refused(database: Database, admin: Admin, reason: str) -> None:
    payload = json.dumps(session())
    admin.execute(
        "select billing.park(%s, 'checkout.session.completed', %s, %s, %s)", [EVENT, reason, PAYMENT, payload]
    )
    done = run(EVENT, "--user", BOB, "--credits", "100", DATABASE_URL=database.operator_url)
    assert (done.returncode, done.stderr.startswith(f"webhook: {EVENT} is parked as {reason}: ")) == (2, True)
    assert admin.execute("select from billing.sales").rowcount == 0


def test_assign_of_an_erased_sale_is_refused(database: Database, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    admin.execute("select billing.erase_user(%s)", [ALICE])
    done = run(PAYMENT, "--user", BOB, DATABASE_URL=database.operator_url)
    assert (done.returncode, balance(admin, BOB)) == (2, 0)
    assert "belonged to a user who was erased" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--withdraw", "--user", BOB),
        ("--withdraw", "--credits", "5"),
        ("--credits", "0"),
        ("--credits", "1000000001"),
        ("--credits", "-5"),
        ("--user", "ann@example.com"),
        ("--user", BOB, "--id", "1"),
    ],
    ids=str,
)
def test_assign_with_wrong_usage_exits_with_2(
    deliver: Deliver, assign: Assign, admin: Admin, options: tuple[str, ...]
) -> None:
    deliver(session())
    assert assign(PAYMENT, *options).exit_code == 2
    assert actions(admin) == []


def test_assign_by_the_workers_login_records_nothing(database: Database, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    done = run(EVENT, "--user", BOB, DATABASE_URL=database.url)
    assert done.returncode == 2
    assert done.stderr.endswith("grant billing_operator to webhook_worker\n")
    assert admin.execute("select from billing.sales").rowcount == 0


def test_assign_without_an_answer_prints_how_to_repeat() -> None:
    done = run(PAYMENT, "--user", BOB, "--id", ID, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, f"id       {ID}\n", 1)
    assert done.stderr.endswith(f"repeat the command with --id {ID}\n")
