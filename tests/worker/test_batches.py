"""Several deliveries in one call of billing.record(): each has the outcome that it would have alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
import pytest

from support.databases import WORKER, Database
from support.ledger_queries import WAITS, held, new_user, sessions
from support.waiting import PATIENCE, eventually
from webhook.events.event import Event
from webhook.events.facts import SESSION, Customer, Fact, Link, Reversal, Sale, as_json
from webhook.ledger.connections import CONNECTIONS
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome

RECORDED, DUPLICATE = {"outcome": "recorded"}, {"outcome": "duplicate"}
PAYMENT_LOCK = "select pg_advisory_xact_lock(hashtextextended('pi_1', 4242))"
STRANGER = "00000000-0000-4000-8000-000000000000"


@dataclass
class Bank:
    admin: psycopg.Connection[Any]
    user_id: str

    def record(self, *deliveries: Sequence[Fact]) -> list[dict[str, str]]:
        told = [
            {"event_id": f"evt_{number}", "facts": [as_json(fact) for fact in facts]}
            for number, facts in enumerate(deliveries)
        ]
        [(results,)] = self.admin.execute("select billing.record(%s)", [json.dumps(told)]).fetchall()
        return results

    def sale(self, payment_id: str = "pi_1", **changes: Any) -> Sale:
        return Sale(
            **{
                **asdict(Sale(payment_id, SESSION, self.user_id, 100, 1000, "usd", paid=True)),
                **changes,
            }
        )

    def entries(self) -> list[tuple[str, int]]:
        return self.admin.execute("select stripe_id, amount from public.transactions order by stripe_id").fetchall()

    def customers(self) -> list[tuple[str, str]]:
        return self.admin.execute("select customer_id, user_id::text from billing.customers order by 1, 2").fetchall()

    def balance(self) -> int:
        [(balance,)] = self.admin.execute("select credits_balance from public.users where id = %s", [self.user_id])
        return balance


@pytest.fixture
def bank(admin: psycopg.Connection[Any]) -> Bank:
    return Bank(admin, new_user(admin))


def refund(payment_id: str = "pi_1", money_amount: int = 1000) -> Reversal:
    return Reversal("re_1", 1, payment_id, money_amount, "usd")


def test_sales_in_a_batch_are_all_recorded(bank: Bank) -> None:
    """One call grants several sales, of one user, too."""
    assert bank.record([bank.sale("pi_1")], [bank.sale("pi_2", credits=5)]) == [RECORDED, RECORDED]
    assert (bank.entries(), bank.balance()) == ([("pi_1", 100), ("pi_2", 5)], 105)


def test_sale_in_a_batch_stores_what_it_stores_alone(bank: Bank) -> None:
    """The short way and the long one leave the same rows."""
    bank.record([bank.sale("pi_1", customer_id="cus_1")])
    bank.record([bank.sale("pi_2", customer_id="cus_1"), refund("pi_other")])
    facts = "select version, user_id, credits, money_amount, currency, paid, customer_id, erased_at from billing.sales"
    entries = "select user_id, amount, type, money_amount, currency, stripe_id = payment_id from public.transactions"
    for query in (facts, entries):
        one, other = (
            bank.admin.execute(f"{query} where payment_id = %s", [name]).fetchall() for name in ("pi_1", "pi_2")
        )
        assert one == other != []


def test_sale_twice_in_a_batch_is_recorded_once(bank: Bank) -> None:
    """A redelivery in the same call is a duplicate."""
    assert bank.record([bank.sale()], [bank.sale("pi_2")], [bank.sale()]) == [RECORDED, RECORDED, DUPLICATE]
    assert bank.balance() == 200


def test_known_sale_in_a_batch_of_new_ones_is_a_duplicate(bank: Bank) -> None:
    """A redelivery among new sales is one, and grants nothing."""
    bank.record([bank.sale()])
    assert bank.record([bank.sale("pi_2")], [bank.sale()]) == [RECORDED, DUPLICATE]
    assert bank.balance() == 200


def test_sale_of_an_unknown_user_in_a_batch_leaves_its_neighbours_alone(bank: Bank) -> None:
    """What cannot be settled says so, in its own place."""
    stranger = bank.sale("pi_2", user_id=STRANGER)
    unsettled = {"outcome": "unsettled", "reason": "unknown_user"}
    assert bank.record([bank.sale()], [stranger], [bank.sale("pi_3")]) == [RECORDED, unsettled, RECORDED]
    assert bank.entries() == [("pi_1", 100), ("pi_3", 100)]


def test_unpaid_sale_in_a_batch_is_not_granted(bank: Bank) -> None:
    """The short way is for what is paid."""
    bank.record([bank.sale(paid=False)], [bank.sale("pi_2")])
    assert bank.entries() == [("pi_2", 100)]


@pytest.mark.parametrize(("missing", "reason"), [("credits", "missing_credits"), ("user_id", "missing_user")])
def test_sale_in_a_batch_that_lacks_something_is_unsettled(bank: Bank, missing: str, reason: str) -> None:
    """It says what it lacks, and its neighbour is recorded."""
    unsettled = {"outcome": "unsettled", "reason": reason}
    assert bank.record([bank.sale(**{missing: None})], [bank.sale("pi_2")]) == [unsettled, RECORDED]


@pytest.mark.parametrize(
    ("payment_id", "known"),
    [
        ("pi_1", [refund()]),
        ("pi_1", [Link("inpay_1", "in_1", "pi_1"), refund("in_1")]),
        ("in_1", [Link("inpay_1", "in_1", "pi_1"), refund("pi_1")]),
    ],
)
def test_sale_that_finds_its_refund_waiting_keeps_nothing(bank: Bank, payment_id: str, known: list[Fact]) -> None:
    """Neither a refund nor a link that came first is overlooked."""
    bank.record(known)
    bank.record([bank.sale(payment_id)], [bank.sale("pi_2")])
    assert bank.balance() == 100


def test_sale_in_a_batch_tells_who_its_customer_is(bank: Bank) -> None:
    """As it does alone, and as often as the customer buys."""
    customer = Customer("cus_1", bank.user_id)
    assert bank.record([customer, bank.sale("pi_1")], [customer, bank.sale("pi_2")]) == [RECORDED, RECORDED]
    assert bank.customers() == [("cus_1", bank.user_id)]
    assert bank.balance() == 200


@pytest.mark.parametrize("order", [1, -1])
def test_sale_that_tells_who_a_customer_is_settles_what_waited_for_it(bank: Bank, order: int) -> None:
    """Before it, or in the same batch, in any order."""
    told = [Customer("cus_1", bank.user_id), bank.sale("pi_1")]
    invoice = [bank.sale("in_1", user_id=None, customer_id="cus_1")]
    bank.record(*[told, invoice][::order])
    assert bank.balance() == 200
    bank.record([bank.sale("in_2", user_id=None, customer_id="cus_2")])
    bank.record([Customer("cus_2", bank.user_id), bank.sale("pi_2")])
    assert bank.balance() == 400


def test_sale_that_tells_who_another_users_customer_is_takes_the_long_way(bank: Bank) -> None:
    """Two facts about two users are not one sale's."""
    other = new_user(bank.admin)
    bank.record([Customer("cus_1", other), bank.sale()])
    assert bank.customers() == [("cus_1", other)]
    assert bank.balance() == 100


def test_refund_in_the_delivery_of_another_sale_counts(bank: Bank) -> None:
    """A delivery that says more than its sale is heard to its end."""
    bank.record([bank.sale("pi_2")])
    bank.record([bank.sale(), refund("pi_2")])
    assert bank.balance() == 100


@pytest.mark.parametrize("order", [1, -1])
def test_sale_and_its_refund_in_one_batch_leave_nothing(bank: Bank, order: int) -> None:
    """They may come in the same call, in any order."""
    assert bank.record(*[[bank.sale()], [refund()]][::order]) == [RECORDED, RECORDED]
    assert bank.balance() == 0


@pytest.mark.parametrize(("stripe_id", "payment_id"), [("pi_1", None), ("by_hand", "pi_1")])
def test_sale_that_somebody_entered_by_hand_is_not_granted_again(
    bank: Bank, stripe_id: str, payment_id: str | None
) -> None:
    """A ledger row of the payment is that sale."""
    query = (
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id) values (%s, 100, %s, %s, %s)"
    )
    bank.admin.execute(query, [bank.user_id, "PURCHASE", stripe_id, payment_id])
    bank.record([bank.sale()], [bank.sale("pi_2")])
    assert bank.balance() == 200


@pytest.mark.parametrize(("event_id", "payment_id"), [("evt_0", None), ("evt_parked", "pi_1")])
def test_sale_ends_the_waiting_of_its_parked_event(bank: Bank, event_id: str, payment_id: str | None) -> None:
    """The event itself may have waited, or another of the same sale."""
    query = "select billing.park(%s, 'checkout.session.completed', 'missing_user', %s, '{}')"
    bank.admin.execute(query, [event_id, payment_id])
    bank.record([bank.sale()])
    assert bank.admin.execute("select from billing.parked_events where resolved_at is null").rowcount == 0


def test_sale_of_prices_keeps_the_credits_that_were_told_first(bank: Bank) -> None:
    """Until an event names more itself."""
    for credits_told in (100, 150, 50):
        bank.record([bank.sale(credits=credits_told, priced=True)])
    assert bank.balance() == 100
    bank.record([bank.sale(credits=120)])
    assert bank.balance() == 120


@pytest.mark.parametrize("order", [1, -1])
def test_sale_that_one_source_tells_of_two_users_goes_to_the_same_one_in_any_order(bank: Bank, order: int) -> None:
    """To the one whose id sorts first."""
    users = sorted([bank.user_id, new_user(bank.admin)])
    for user in users[::order]:
        bank.record([bank.sale(user_id=user)])
    rows = bank.admin.execute(
        "select credits_balance from public.users where id = any(%s::uuid[]) order by id", [users]
    )
    assert rows.fetchall() == [(100,), (0,)]


def test_ledger_asked_by_many_at_once_uses_eight_connections(database: Database) -> None:
    """The connections of a process can be counted on, whatever comes in."""
    ledger = Ledger(database.url)
    event = Event("evt_1", "refund.created", livemode=False, account=None, object={})
    with held(database.superuser_url, PAYMENT_LOCK) as holder, ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(ledger.park, event, "unreadable", "pi_1", "{}") for _ in range(20)]
        eventually(lambda: sessions(holder, WAITS) == CONNECTIONS)
        assert sessions(holder, "application_name = 'webhook'") == CONNECTIONS
        holder.rollback()
        assert {answer.result(PATIENCE).name for answer in answers} == {"parked"}
    ledger.close()


def test_ledger_whose_connections_are_all_busy_is_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who would wait too long is told to come again."""
    monkeypatch.setattr("webhook.ledger.connections._POOL_TIMEOUT", 0.1)
    ledger = Ledger(database.url)
    event = Event("evt_1", "refund.created", livemode=False, account=None, object={})
    with held(database.superuser_url, PAYMENT_LOCK) as holder, ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = [threads.submit(ledger.park, event, "unreadable", "pi_1", "{}") for _ in range(CONNECTIONS)]
        eventually(lambda: sessions(holder, WAITS) == CONNECTIONS)
        with pytest.raises(LedgerUnavailableError, match="busy"):
            ledger.parked_count()
        holder.rollback()
        assert {answer.result(PATIENCE).name for answer in answers} == {"parked"}
    ledger.close()


def test_sale_recorded_on_a_session_that_defaults_to_read_only_is_committed(bank: Bank, database: Database) -> None:
    """What a pooler's other clients left behind is overruled, in time."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        for setting in ("default_transaction_isolation = 'serializable'", "default_transaction_read_only = on"):
            superuser.execute(f"alter role {WORKER} in database {database.name} set {setting}")
    ledger = Ledger(database.url)
    assert ledger.record("evt_1", [bank.sale()]) == Outcome("recorded")
    ledger.close()


TROUBLE = """
create function public.trouble() returns trigger language plpgsql as $$
begin
    perform pg_sleep(0.1);
    if exists (select from entries where stripe_id = 'pi_bad') then
        raise exception 'trouble';
    end if;
    return null;
end $$;
create trigger trouble after insert on public.transactions
    referencing new table as entries for each statement execute function public.trouble()
"""


@pytest.fixture
def outcomes(bank: Bank, database: Database) -> Iterator[dict[str, Outcome | BaseException | None]]:
    """What becomes of sales that are recorded at once, by a slow database that refuses one of them."""
    bank.admin.execute(TROUBLE)
    ledger = Ledger(database.url)
    names = ["pi_bad", *(f"pi_{number}" for number in range(9))]
    with ThreadPoolExecutor(len(names)) as threads:
        futures = {name: threads.submit(ledger.record, f"evt_{name}", [bank.sale(name)]) for name in names}
        yield {name: future.exception() or future.result() for name, future in futures.items()}
    ledger.close()


def test_sale_that_the_database_refuses_takes_no_neighbour_down(
    bank: Bank, outcomes: dict[str, Outcome | BaseException | None]
) -> None:
    """Only the delivery that cannot be recorded is asked for again."""
    assert isinstance(outcomes.pop("pi_bad"), LedgerRefusedError)
    assert set(outcomes.values()) == {Outcome("recorded")}
    assert bank.balance() == 900


def test_sales_recorded_at_once_share_commits(bank: Bank, database: Database) -> None:
    """Those that come while a transaction is under way are committed together."""
    bank.admin.execute(TROUBLE)
    ledger = Ledger(database.url)
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda number: ledger.record(f"evt_{number}", [bank.sale(f"pi_{number}")]), range(10)))
    ledger.close()
    [(commits,)] = bank.admin.execute("select count(distinct xmin::text) from public.transactions").fetchall()
    assert commits <= 3
    assert bank.balance() == 1000
