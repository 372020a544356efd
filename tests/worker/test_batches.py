"""Several deliveries in one call of billing.record(): each has the same outcome as if it were alone."""

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
from support.waiting import WAIT_TIMEOUT, eventually
from webhook.events.event import Event
from webhook.events.facts import (
    INVOICE,
    INVOICE_METADATA,
    ONE_TIME_SALE,
    SESSION,
    Claim,
    Fact,
    Link,
    Reversal,
    Sale,
    as_json,
)
from webhook.ledger.connections import CONNECTIONS
from webhook.ledger.errors import LedgerRefusedError, LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome

RECORDED, DUPLICATE = {"outcome": "recorded"}, {"outcome": "duplicate"}
PAYMENT_LOCK = "select pg_advisory_xact_lock(hashtextextended('pi_1', 4242))"
UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"


@dataclass
class Bank:
    """Calls billing.record() directly, and reads the user's ledger."""

    admin: psycopg.Connection[Any]
    user_id: str

    def record(self, *deliveries: Sequence[Fact]) -> list[dict[str, str]]:
        batch = [
            {"event_id": f"evt_{number}", "facts": [as_json(fact) for fact in facts]}
            for number, facts in enumerate(deliveries)
        ]
        [(results,)] = self.admin.execute("select billing.record(%s)", [json.dumps(batch)]).fetchall()
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

    def claims(self) -> list[tuple[str, str]]:
        return self.admin.execute("select subject_id, user_id::text from billing.claims order by 1, 2").fetchall()

    def balance(self) -> int:
        [(balance,)] = self.admin.execute("select credits_balance from public.users where id = %s", [self.user_id])
        return balance


@pytest.fixture
def bank(admin: psycopg.Connection[Any]) -> Bank:
    return Bank(admin, new_user(admin))


def refund(payment_id: str = "pi_1", money_amount: int = 1000) -> Reversal:
    return Reversal("re_1", 1, payment_id, money_amount, "usd")


def test_sales_in_a_batch_are_all_recorded(bank: Bank) -> None:
    """One call can grant several sales of one user."""
    assert bank.record([bank.sale("pi_1")], [bank.sale("pi_2", credits=5)]) == [RECORDED, RECORDED]
    assert (bank.entries(), bank.balance()) == ([("pi_1", 100), ("pi_2", 5)], 105)


def test_short_and_full_path_of_a_sale_store_the_same_rows(bank: Bank) -> None:
    """A delivery with facts about another payment takes the full path."""
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
    """The redelivery in the same call is a duplicate."""
    assert bank.record([bank.sale()], [bank.sale("pi_2")], [bank.sale()]) == [RECORDED, RECORDED, DUPLICATE]
    assert bank.balance() == 200


def test_redelivered_sale_among_new_sales_is_a_duplicate(bank: Bank) -> None:
    """The redelivery grants nothing."""
    bank.record([bank.sale()])
    assert bank.record([bank.sale("pi_2")], [bank.sale()]) == [RECORDED, DUPLICATE]
    assert bank.balance() == 200


def test_sale_of_an_unknown_user_does_not_affect_its_batch(bank: Bank) -> None:
    """Only its own result is unsettled."""
    unknown = bank.sale("pi_2", user_id=UNKNOWN_USER)
    unsettled = {"outcome": "unsettled", "reason": "unknown_user"}
    assert bank.record([bank.sale()], [unknown], [bank.sale("pi_3")]) == [RECORDED, unsettled, RECORDED]
    assert bank.entries() == [("pi_1", 100), ("pi_3", 100)]


def test_unpaid_sale_in_a_batch_is_not_granted(bank: Bank) -> None:
    """The short path is for paid sales only."""
    bank.record([bank.sale(paid=False)], [bank.sale("pi_2")])
    assert bank.entries() == [("pi_2", 100)]


@pytest.mark.parametrize(("missing", "reason"), [("credits", "missing_credits"), ("user_id", "missing_user")])
def test_incomplete_sale_in_a_batch_is_unsettled(bank: Bank, missing: str, reason: str) -> None:
    """Its result names the missing value, and the other sale is recorded."""
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
def test_sale_in_a_batch_after_its_refund_keeps_nothing(bank: Bank, payment_id: str, known: list[Fact]) -> None:
    """A refund or link that was recorded first is taken into account."""
    bank.record(known)
    bank.record([bank.sale(payment_id)], [bank.sale("pi_2")])
    assert bank.balance() == 100


def test_sale_in_a_batch_links_its_customer_to_the_user(bank: Bank) -> None:
    """Further purchases of the customer are recorded as well."""
    customer = Claim(None, "cus_1", bank.user_id, ONE_TIME_SALE)
    assert bank.record([customer, bank.sale("pi_1")], [customer, bank.sale("pi_2")]) == [RECORDED, RECORDED]
    assert bank.claims() == [("cus_1", bank.user_id)]
    assert bank.balance() == 200


@pytest.mark.parametrize("order", [1, -1])
def test_customer_link_in_a_batch_settles_its_waiting_sales(bank: Bank, order: int) -> None:
    """Their sales come before the batch, or in the same batch in any order."""
    linking = [Claim(None, "cus_1", bank.user_id, ONE_TIME_SALE), bank.sale("pi_1")]
    invoice = [bank.sale("in_1", user_id=None, customer_id="cus_1")]
    bank.record(*[linking, invoice][::order])
    assert bank.balance() == 200
    bank.record([bank.sale("in_2", user_id=None, customer_id="cus_2")])
    bank.record([Claim(None, "cus_2", bank.user_id, ONE_TIME_SALE), bank.sale("pi_2")])
    assert bank.balance() == 400


def renewal(bank: Bank, name: str, created: int) -> list[Fact]:
    """Return the facts of a renewal that names its user."""
    return [Claim("sub_1", "cus_1", bank.user_id, INVOICE_METADATA, created), bank.sale(name, version=INVOICE)]


def test_renewals_in_a_batch_keep_the_newest_claim(bank: Bank) -> None:
    """They take the short path, like all sales that come with a claim of their user."""
    assert bank.record(renewal(bank, "in_1", 5), renewal(bank, "in_2", 7)) == [RECORDED, RECORDED]
    bank.record(renewal(bank, "in_3", 6))
    created = "select extract(epoch from created)::integer from billing.claims"
    assert bank.admin.execute(created).fetchall() == [(7,)]
    assert bank.balance() == 300


@pytest.mark.parametrize("level", [INVOICE_METADATA, ONE_TIME_SALE])
def test_short_and_full_path_store_the_same_claim(bank: Bank, level: int) -> None:
    """A delivery with facts about another payment takes the full path."""
    subscription = "sub_1" if level == INVOICE_METADATA else None
    stored = []
    for name, others in (("1", []), ("2", [refund("pi_other")])):
        claim = Claim(subscription and f"sub_{name}", f"cus_{name}", bank.user_id, level, 5)
        bank.record([claim, *others, bank.sale(f"pi_{name}")])
        query = "select right(subject_id, -4), right(customer_id, -4), level, created, is_erased from billing.claims"
        [row] = bank.admin.execute(f"{query} where subject_id like %s", [f"%{name}"]).fetchall()
        stored.append([value for value in row if value != name])
    assert stored[0] == stored[1]


def test_renewal_in_a_batch_settles_the_subscriptions_waiting_sale(bank: Bank) -> None:
    """So it does not take the short path."""
    bank.record([bank.sale("in_1", user_id=None, subscription_id="sub_1", customer_id="cus_9")])
    bank.record(renewal(bank, "in_2", 5), [bank.sale("pi_1")])
    assert bank.balance() == 300


def test_sale_with_another_users_customer_takes_the_full_path(bank: Bank) -> None:
    """The short path is for facts about one user."""
    other = new_user(bank.admin)
    bank.record([Claim(None, "cus_1", other, ONE_TIME_SALE), bank.sale()])
    assert bank.claims() == [("cus_1", other)]
    assert bank.balance() == 100


def test_refund_in_another_sales_delivery_is_recorded(bank: Bank) -> None:
    """All facts of a delivery are recorded, not only its sale."""
    bank.record([bank.sale("pi_2")])
    bank.record([bank.sale(), refund("pi_2")])
    assert bank.balance() == 100


@pytest.mark.parametrize("order", [1, -1])
def test_sale_and_its_refund_in_one_batch_leave_nothing(bank: Bank, order: int) -> None:
    """Their order in the batch does not matter."""
    assert bank.record(*[[bank.sale()], [refund()]][::order]) == [RECORDED, RECORDED]
    assert bank.balance() == 0


@pytest.mark.parametrize(("stripe_id", "payment_id"), [("pi_1", None), ("by_hand", "pi_1")])
def test_sale_entered_manually_is_not_granted_again(bank: Bank, stripe_id: str, payment_id: str | None) -> None:
    """A ledger row of the payment counts as this sale."""
    query = (
        "insert into public.transactions (user_id, amount, type, stripe_id, payment_id) values (%s, 100, %s, %s, %s)"
    )
    bank.admin.execute(query, [bank.user_id, "PURCHASE", stripe_id, payment_id])
    bank.record([bank.sale()], [bank.sale("pi_2")])
    assert bank.balance() == 200


@pytest.mark.parametrize(("event_id", "payment_id"), [("evt_0", None), ("evt_parked", "pi_1")])
def test_recorded_sale_resolves_its_parked_event(bank: Bank, event_id: str, payment_id: str | None) -> None:
    """The parked event is the same event or another one of the same sale."""
    query = "select billing.park(%s, 'checkout.session.completed', 'missing_user', %s, '{}')"
    bank.admin.execute(query, [event_id, payment_id])
    bank.record([bank.sale()])
    assert bank.admin.execute("select from billing.parked_events where resolved_at is null").rowcount == 0


def test_priced_sale_keeps_the_credits_recorded_first(bank: Bank) -> None:
    """Only an event with its own credits raises them."""
    for price_credits in (100, 150, 50):
        bank.record([bank.sale(credits=price_credits, priced=True)])
    assert bank.balance() == 100
    bank.record([bank.sale(credits=120)])
    assert bank.balance() == 120


@pytest.mark.parametrize("order", [1, -1])
def test_sale_with_two_users_goes_to_the_same_one_in_any_order(bank: Bank, order: int) -> None:
    """The user with the lowest id gets the credits."""
    users = sorted([bank.user_id, new_user(bank.admin)])
    for user in users[::order]:
        bank.record([bank.sale(user_id=user)])
    rows = bank.admin.execute(
        "select credits_balance from public.users where id = any(%s::uuid[]) order by id", [users]
    )
    assert rows.fetchall() == [(100,), (0,)]


def test_ledger_under_concurrent_calls_uses_eight_connections(database: Database) -> None:
    """The number of connections per process is predictable under any load."""
    ledger = Ledger(database.url)
    event = Event("evt_1", "refund.created", livemode=False, account=None, object={})
    with held(database.superuser_url, PAYMENT_LOCK) as holder, ThreadPoolExecutor(20) as threads:
        calls = [threads.submit(ledger.park, event, "unreadable", "pi_1", "{}") for _ in range(20)]
        eventually(lambda: sessions(holder, WAITS) == CONNECTIONS)
        assert sessions(holder, "application_name = 'webhook'") == CONNECTIONS
        holder.rollback()
        assert {call.result(WAIT_TIMEOUT).name for call in calls} == {"parked"}
    ledger.close()


def test_ledger_with_all_connections_busy_is_unavailable(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits too long for a connection fails, so that Stripe retries."""
    monkeypatch.setattr("webhook.ledger.connections._POOL_TIMEOUT", 0.1)
    ledger = Ledger(database.url)
    event = Event("evt_1", "refund.created", livemode=False, account=None, object={})
    with held(database.superuser_url, PAYMENT_LOCK) as holder, ThreadPoolExecutor(CONNECTIONS) as threads:
        calls = [threads.submit(ledger.park, event, "unreadable", "pi_1", "{}") for _ in range(CONNECTIONS)]
        eventually(lambda: sessions(holder, WAITS) == CONNECTIONS)
        with pytest.raises(LedgerUnavailableError, match="busy"):
            ledger.current_counts()
        holder.rollback()
        assert {call.result(WAIT_TIMEOUT).name for call in calls} == {"parked"}
    ledger.close()


def test_sale_on_a_session_with_read_only_default_is_committed(bank: Bank, database: Database) -> None:
    """The worker overrides settings that other clients of a pooler left behind."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        for setting in ("default_transaction_isolation = 'serializable'", "default_transaction_read_only = on"):
            superuser.execute(f"alter role {WORKER} in database {database.name} set {setting}")
    ledger = Ledger(database.url)
    assert ledger.record("evt_1", [bank.sale()]) == Outcome("recorded")
    ledger.close()


SLOW_AND_FAILING_TRIGGER = """
create function public.fail_slowly() returns trigger language plpgsql as $$
begin
    perform pg_sleep(0.1);
    if exists (select from entries where stripe_id = 'pi_bad') then
        raise exception 'rejected';
    end if;
    return null;
end $$;
create trigger fail_slowly after insert on public.transactions
    referencing new table as entries for each statement execute function public.fail_slowly()
"""


@pytest.fixture
def outcomes(bank: Bank, database: Database) -> Iterator[dict[str, Outcome | BaseException | None]]:
    """Return the outcomes of concurrent sales on a slow database that rejects one of them."""
    bank.admin.execute(SLOW_AND_FAILING_TRIGGER)
    ledger = Ledger(database.url)
    names = ["pi_bad", *(f"pi_{number}" for number in range(9))]
    with ThreadPoolExecutor(len(names)) as threads:
        futures = {name: threads.submit(ledger.record, f"evt_{name}", [bank.sale(name)]) for name in names}
        yield {name: future.exception() or future.result() for name, future in futures.items()}
    ledger.close()


def test_sale_rejected_by_the_database_fails_alone(
    bank: Bank, outcomes: dict[str, Outcome | BaseException | None]
) -> None:
    """The other deliveries need no retry."""
    assert isinstance(outcomes.pop("pi_bad"), LedgerRefusedError)
    assert set(outcomes.values()) == {Outcome("recorded")}
    assert bank.balance() == 900


def test_concurrent_sales_share_commits(bank: Bank, database: Database) -> None:
    """Sales that arrive during a transaction are committed together."""
    bank.admin.execute(SLOW_AND_FAILING_TRIGGER)
    ledger = Ledger(database.url)
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda number: ledger.record(f"evt_{number}", [bank.sale(f"pi_{number}")]), range(10)))
    ledger.close()
    [(commits,)] = bank.admin.execute("select count(distinct xmin::text) from public.transactions").fetchall()
    assert commits <= 3
    assert bank.balance() == 1000
