"""Who a sale is for that names nobody: claims of its subscription and its Stripe customer, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from support.databases import Database
from support.delivery import deliver_to
from support.ledger_queries import WAITS, sessions
from support.recorded import USER_ID, invoice_event, payment_intent_event, refund_event, session_event
from support.roles import connected, record
from support.waiting import WAIT_TIMEOUT, eventually
from webhook.ledger.ledger import Ledger, Outcome

A = USER_ID
B = "00000000-0000-4000-8000-000000000002"
UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"
CUSTOMER = "cus_1"
ERASE, SIGN_UP = "erase", "sign up"

Admin = psycopg.Connection[Any]
Step = dict[str, Any] | tuple[str, str]


@dataclass
class Worker:
    """A worker's ledger, and the owner's connection to its database."""

    ledger: Ledger
    admin: Admin

    def __call__(self, event: dict[str, Any]) -> Outcome:
        return deliver_to(self.ledger, event)

    def does(self, *steps: Step) -> None:
        """Deliver events; (ERASE, user) and (SIGN_UP, user) happen in between."""
        for step in steps:
            match step:
                case dict():
                    self(step)
                case ("erase", user):
                    self.admin.execute("select billing.erase_user(%s)", [user])
                case (_, user):
                    self.admin.execute("insert into auth.users (id) values (%s)", [user])

    def balances(self) -> list[int | None]:
        """Return the balances of A and B, in this order; None for a user without an account."""
        query = "select credits_balance from unnest(%s::uuid[]) with ordinality as u (id, n) left join public.users"
        return [row for (row,) in self.admin.execute(f"{query} using (id) order by n", [[A, B]])]

    def parked(self) -> list[tuple[str, str]]:
        query = "select event_id, reason from billing.parked_events where resolved_at is null order by 1"
        return self.admin.execute(query).fetchall()


@pytest.fixture
def worker(ledger: Ledger, admin: Admin) -> Worker:
    return Worker(ledger, admin)


@pytest.fixture
def deliver(worker: Worker) -> Worker:
    """Return a worker after A and B have signed up."""
    worker.does((SIGN_UP, A), (SIGN_UP, B))
    return worker


def renewal(name: str = "in_1", subscription: str = "sub_1", **fields: Any) -> dict[str, Any]:
    """Return a subscription's invoice that names no user, unless `fields` do."""
    fields = {"user_id": None, "customer": CUSTOMER} | fields
    return invoice_event(event_id=f"evt_{name}", id=name, subscription=subscription, **fields)


def start(user_id: str | None = A, subscription: str = "sub_1", **fields: Any) -> dict[str, Any]:
    """Return the Checkout Session that started a subscription."""
    name = "checkout.session.completed.subscription"
    fields = {"client_reference_id": user_id, "customer": CUSTOMER} | fields
    event_id = f"evt_{subscription}_{user_id}_{fields['client_reference_id']}"
    return session_event(name, event_id=event_id, user_id=user_id, subscription=subscription, **fields)


def purchase(user_id: str = A, name: str = "pi_1", **fields: Any) -> dict[str, Any]:
    """Return a one-time sale."""
    fields = {"client_reference_id": user_id, "customer": CUSTOMER} | fields
    return session_event(event_id=f"evt_{name}", user_id=user_id, payment_intent=name, **fields)


def in_every_order(*steps: Step, **orders: Any) -> Any:
    del orders
    return pytest.mark.parametrize("steps", list(permutations(steps)), ids=lambda _: "")


# Subscriptions and customers


def test_invoice_of_a_claimed_subscription_is_recorded(deliver: Worker) -> None:
    assert deliver(start()) == Outcome("recorded")
    assert deliver(renewal()) == Outcome("recorded")
    assert deliver.balances() == [100, 0]


def test_invoice_of_an_unclaimed_subscription_waits_for_a_claim(deliver: Worker) -> None:
    assert deliver(renewal()) == Outcome("parked", "missing_user")
    assert deliver(start()) == Outcome("recorded")
    assert (deliver.balances(), deliver.parked()) == ([100, 0], [])


def test_parked_invoices_of_one_subscription_are_settled_together(deliver: Worker) -> None:
    deliver.does(*(renewal(name) for name in ("in_1", "in_2", "in_3")), start())
    assert (deliver.balances(), deliver.parked()) == ([300, 0], [])


def test_redelivered_subscription_session_is_a_duplicate(deliver: Worker) -> None:
    deliver(start())
    assert deliver(start()) == Outcome("duplicate")


@pytest.mark.parametrize("event", [session_event(customer=CUSTOMER), payment_intent_event(customer=CUSTOMER)])
def test_paid_sale_claims_its_customer_for_the_user(deliver: Worker, event: dict[str, Any]) -> None:
    deliver(event)
    assert deliver(renewal()) == Outcome("recorded")
    assert deliver.balances() == [200, 0]


def test_subscription_claims_its_customer_for_other_sales(deliver: Worker) -> None:
    """A one-time invoice of the customer names no user and no subscription."""
    deliver.does(start(), purchase(B))
    deliver(session_event(user_id=None, customer=CUSTOMER, payment_intent="pi_2"))
    assert deliver.balances() == [100, 100]


def test_invoice_metadata_claims_later_renewals(deliver: Worker) -> None:
    """The newest invoice counts, whichever arrives last: the subscription was handed over to B."""
    named = [renewal(f"in_{n}", user_id=user, created=n) for n, user in ((2, A), (4, B), (3, A))]
    deliver.does(*named, renewal("in_5"))
    assert deliver.balances() == [200, 200]


def test_metadata_of_a_session_counts_before_its_reference(deliver: Worker) -> None:
    deliver.does(start(B, client_reference_id=A), renewal())
    assert deliver.balances() == [0, 100]


def test_sale_with_a_user_ignores_claims(deliver: Worker) -> None:
    deliver.does(start(B), renewal(user_id=A))
    assert deliver.balances() == [100, 0]


def test_user_named_later_overrides_claims(deliver: Worker) -> None:
    deliver.does(
        start(B), session_event(user_id=None, customer=CUSTOMER, payment_intent="pi_1"), payment_intent_event(id="pi_1")
    )
    assert deliver.balances() == [100, 0]


# The payer is not the receiver


GIFT = (
    purchase(B, client_reference_id=A),
    payment_intent_event(event_id="evt_gift", id="pi_1", user_id=B, credits=100, customer=CUSTOMER),
)


@in_every_order(*GIFT, start(A), renewal())
def test_gift_does_not_give_the_payers_renewals_away(deliver: Worker, steps: Sequence[Step]) -> None:
    deliver.does(*steps)
    assert (deliver.balances(), deliver.parked()) == ([100, 100], [])


@in_every_order(*GIFT, renewal())
def test_gift_alone_makes_nobody_the_owner(deliver: Worker, steps: Sequence[Step]) -> None:
    """The receiver's PaymentIntents do not, either."""
    deliver.does(*steps)
    [(_, reason)] = deliver.parked()
    assert (deliver.balances(), reason) == ([0, 100], "missing_user")


@in_every_order(*GIFT, purchase(A, "pi_2"), renewal())
def test_gift_keeps_what_the_payer_claims(deliver: Worker, steps: Sequence[Step]) -> None:
    deliver.does(*steps)
    assert (deliver.balances(), deliver.parked()) == ([200, 100], [])


@in_every_order(start(A, "sub_a"), start(B, "sub_b"), renewal("in_a", "sub_a"), renewal("in_b", "sub_b"))
def test_team_admin_pays_renewals_of_two_seats(deliver: Worker, steps: Sequence[Step]) -> None:
    deliver.does(*steps)
    assert (deliver.balances(), deliver.parked()) == ([100, 100], [])


@in_every_order(start(A, "sub_a"), start(B, "sub_b"), purchase(A), renewal("in_c", "sub_c"))
def test_third_seat_without_a_claim_is_ambiguous(deliver: Worker, steps: Sequence[Step]) -> None:
    """Its customer has two users, so the weaker claim of the one-time sale does not count either."""
    deliver.does(*steps)
    [(_, reason)] = deliver.parked()
    assert (deliver.balances(), reason) == ([100, 0], "ambiguous_customer")


@in_every_order(start(A), renewal(), start(B))
def test_two_strongest_claims_leave_the_sale_to_nobody(deliver: Worker, steps: Sequence[Step]) -> None:
    """Credits that the first of them got are taken back, and the sale is listed."""
    deliver.does(*steps)
    [(_, reason)] = deliver.parked()
    assert (deliver.balances(), reason) == ([0, 0], "ambiguous_customer")


def test_ambiguous_sale_has_no_user(deliver: Worker) -> None:
    deliver.does(start(A), renewal(), start(B))
    sale = deliver.admin.execute("select user_id, claimants from billing.sale_of(array['in_1'])").fetchone()
    assert sale == (None, sorted([UUID(A), UUID(B)]))


def test_ambiguous_sale_is_settled_by_a_stronger_claim(deliver: Worker) -> None:
    deliver.does(start(A), renewal(), start(B), renewal("in_2", user_id=B, created=1))
    assert (deliver.balances(), deliver.parked()) == ([0, 200], [])


def test_ambiguous_sale_is_listed_again(deliver: Worker) -> None:
    """Its entry was settled by a stronger claim before two such claims met."""
    deliver.does(start(A), renewal(), start(B))
    deliver.does(renewal("in_2", user_id=B, created=1), renewal("in_3", user_id=A, created=1))
    assert (deliver.balances(), deliver.parked()) == ([100, 100], [("in_1", "ambiguous_customer")])


@in_every_order(start(A), renewal(), start(B), refund_event(payment_intent="in_1", amount=500))
def test_refund_of_an_ambiguous_sale_takes_nothing(deliver: Worker, steps: Sequence[Step]) -> None:
    deliver.does(*steps)
    assert deliver.balances() == [0, 0]


def test_ambiguous_sale_outlives_one_of_its_users(deliver: Worker) -> None:
    """It belongs to neither of them, so erasing one does not erase it."""
    deliver.does(start(A), renewal(), start(B), (ERASE, A), renewal("in_2", user_id=B, created=1))
    assert (deliver.balances(), deliver.parked()) == ([None, 200], [])


# References that are no users


@pytest.mark.parametrize("reference", [UNKNOWN_USER, "order_1234"])
def test_affiliates_reference_in_a_subscription_session(deliver: Worker, reference: str) -> None:
    """It claims nothing and parks nothing."""
    assert deliver(start(A, client_reference_id=reference)) == Outcome("recorded")
    assert deliver(start(None, "sub_2", client_reference_id=reference)) == Outcome("ignored", "no_payment")
    assert deliver(renewal()) == Outcome("recorded")
    assert (deliver.balances(), deliver.parked()) == ([100, 0], [])


def test_sale_of_an_unknown_claimant_is_parked(deliver: Worker) -> None:
    assert deliver(start(UNKNOWN_USER)) == Outcome("ignored", "no_payment")
    assert deliver(renewal()) == Outcome("parked", "missing_user")


# Accounts that come and go


@in_every_order((SIGN_UP, A), start(A), renewal())
def test_new_user_gets_the_sales_that_waited(worker: Worker, steps: Sequence[Step]) -> None:
    worker.does(*steps)
    assert (worker.balances()[0], worker.parked()) == (100, [])


@in_every_order((SIGN_UP, A), start(A), purchase(B), renewal())
def test_new_users_stronger_claim_wins_settled_sales(worker: Worker, steps: Sequence[Step]) -> None:
    worker.does((SIGN_UP, B), *steps)
    assert (worker.balances(), worker.parked()) == ([100, 100], [])


@in_every_order((ERASE, A), start(A), purchase(B), renewal())
def test_erased_users_renewals_go_to_nobody_else(deliver: Worker, steps: Sequence[Step]) -> None:
    deliver.does(*steps)
    assert deliver.balances() == [None, 100]


@in_every_order((ERASE, A), start(A), start(None, client_reference_id=B), renewal(user_id=B, created=1))
def test_erasure_makes_no_difference_for_others(deliver: Worker, steps: Sequence[Step]) -> None:
    """The subscription was handed over to B, so its older sales are B's, whenever A was erased."""
    deliver.does(renewal("in_0"), *steps)
    assert deliver.balances() == [None, 200]


def test_renewal_after_an_erasure_is_parked(deliver: Worker) -> None:
    deliver.does(start(A), (ERASE, A), purchase(B))
    assert deliver(renewal()) == Outcome("parked", "unknown_user")


def test_renewal_from_before_an_erasure_parks_nothing(deliver: Worker) -> None:
    """Its redelivery is a duplicate, and so is that of its claim."""
    deliver.does(start(A), renewal(), (ERASE, A))
    assert [deliver(event).name for event in (start(A), renewal(), start(A))] == ["duplicate"] * 3
    assert deliver.parked() == []


def test_forgotten_sale_that_turns_out_to_be_nobodys_is_parked(deliver: Worker) -> None:
    """Its user was derived from a payment, and the payment turns out to be a gift."""
    session, payment = GIFT
    deliver.does(payment, renewal(), (ERASE, B), session)
    assert deliver.parked() == [("in_1", "missing_user")]


def test_sale_taken_back_from_an_erased_user_stays_parked(deliver: Worker) -> None:
    session, payment = GIFT
    deliver.does(payment, renewal(), session, (ERASE, B))
    assert deliver.parked() == [("in_1", "missing_user")]


def test_erasure_leaves_the_claims_under_a_pseudonym(deliver: Worker, admin: Admin) -> None:
    deliver.does(start(A), renewal("in_1", user_id=A), purchase(A))
    deliver.does((ERASE, A), start(A), renewal("in_2", user_id=A), purchase(A, "pi_2"))
    claims = admin.execute("select user_id::text, is_erased from billing.claims").fetchall()
    assert (len(claims), {(user == A, erased) for user, erased in claims}) == (4, {(False, True)})


@in_every_order(start(A), (ERASE, A), (SIGN_UP, A), renewal())
def test_user_who_signs_up_again_has_the_claims(worker: Worker, steps: Sequence[Step]) -> None:
    """Erasing an account that does not exist changes nothing."""
    worker.does(*steps)
    gone = steps.index((ERASE, A)) > steps.index((SIGN_UP, A))
    assert worker.balances()[0] == (None if gone else 100)


def test_deleted_account_passes_nothing_on(deliver: Worker, admin: Admin) -> None:
    """An account without sales is deleted without erase_user()."""
    deliver.does(start(A), purchase(B))
    admin.execute("delete from auth.users where id = %s", [A])
    assert deliver(renewal()) == Outcome("parked", "unknown_user")


def test_error_of_a_settlement_never_fails_a_sign_up(worker: Worker, admin: Admin) -> None:
    """The next settlement finds the user."""
    worker.does(start(A), renewal())
    admin.execute("alter function billing.settle_again(text[], text) rename to broken")
    worker.does((SIGN_UP, A))
    admin.execute("alter function billing.broken(text[], text) rename to settle_again")
    assert worker.balances()[0] == 0
    assert worker(renewal()) == Outcome("recorded")
    assert worker.balances()[0] == 100


def slow_settlement(admin: Admin, seconds: float) -> None:
    """Make each call of settle_again() take some seconds before it settles anything."""
    admin.execute("alter function billing.settle_again(text[], text) rename to settle_at_last")
    admin.execute(
        "create function billing.settle_again(p_ids text[], p_event_id text) returns boolean language plpgsql as"
        f" $$ begin perform pg_sleep({seconds}); return billing.settle_at_last(p_ids, p_event_id); end $$"
    )


def test_timeout_of_a_settlement_never_fails_a_sign_up(worker: Worker, admin: Admin) -> None:
    worker.does(start(A), renewal())
    slow_settlement(admin, 60)
    admin.execute("set statement_timeout = '500ms'")
    worker.does((SIGN_UP, A))
    assert worker.balances()[0] == 0


def test_sign_up_leaves_most_of_very_many_sales(worker: Worker, admin: Admin) -> None:
    """They stay parked, so a retry settles them."""
    worker.does(start(A), *(renewal(f"in_{number:03}") for number in range(101)))
    slow_settlement(admin, 2.1)
    worker.does((SIGN_UP, A))
    assert worker.balances()[0] == 100 * 100
    assert len(worker.parked()) == 1


def test_sign_up_reads_few_rows_of_many_claims(worker: Worker, admin: Admin) -> None:
    """Its plans were made while the tables were short."""

    def rows_read(count: int) -> int:
        for _ in range(count):
            user = str(uuid4())
            worker.does(start(user, f"sub_{user}", customer=user), renewal(f"in_{user}", f"sub_{user}", customer=user))
            with admin.transaction():
                admin.execute("insert into auth.users (id) values (%s)", [user])
                query = "select sum(seq_tup_read)::integer from pg_stat_xact_user_tables where schemaname = 'billing'"
                [(rows,)] = admin.execute(query)
        return int(rows)

    rows_read(8)  # from the sixth call on, Postgres may keep a generic plan
    admin.execute("vacuum analyze")
    rows_read(8)
    admin.execute(
        "insert into billing.claims (subject_id, user_id, level)"
        " select 'sub_' || n, gen_random_uuid(), 3 from generate_series(1, 5000) as n"
    )
    assert rows_read(1) < 500


# Concurrency


def waits_for(database: Database, fact: dict[str, Any], deliver: Callable[[], Any]) -> Any:
    """Return the result of a delivery that waits until another session commits a fact."""
    with (
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        connected(database, "service_role") as claiming,
        ThreadPoolExecutor(1) as thread,
    ):
        with claiming.transaction():
            record(claiming, fact)
            delivery = thread.submit(deliver)
            eventually(lambda: delivery.done() or sessions(watcher, WAITS) == 1)
            assert not delivery.done()
        return delivery.result(WAIT_TIMEOUT)


CLAIM = {"kind": "claim", "subscription_id": "sub_1", "customer_id": CUSTOMER, "user_id": A, "level": 3}


def test_invoice_waits_for_a_concurrent_claim(deliver: Worker, database: Database) -> None:
    """Otherwise each transaction would miss the other one, and the invoice would stay parked."""
    assert waits_for(database, CLAIM, lambda: deliver(renewal())) == Outcome("recorded")


def test_refund_waits_for_a_concurrent_claim(deliver: Worker, database: Database) -> None:
    """It names neither the subscription nor the customer of its sale."""
    deliver(renewal())
    refund = refund_event(payment_intent="in_1", amount=500)
    assert waits_for(database, CLAIM, lambda: deliver(refund)) == Outcome("recorded")
    assert deliver.balances() == [50, 0]


def test_sign_up_waits_for_a_concurrent_claim(worker: Worker, database: Database) -> None:
    """Otherwise neither would see the other, and the sale would stay parked."""
    worker(renewal())
    waits_for(database, CLAIM, lambda: worker.does((SIGN_UP, A)))
    assert (worker.balances()[0], worker.parked()) == (100, [])


@pytest.mark.parametrize("deletion", ["select billing.erase_user(%s)", "delete from auth.users where id = %s"])
def test_claim_waits_for_a_concurrent_deletion(deliver: Worker, database: Database, deletion: str) -> None:
    """Otherwise the claim would keep the id of a user who is gone, and count no more."""
    with (
        psycopg.connect(database.superuser_url, autocommit=True) as watcher,
        psycopg.connect(database.admin_url) as deleting,
        ThreadPoolExecutor(1) as thread,
    ):
        deleting.execute(deletion, [A])
        claim = thread.submit(deliver, start(A))
        eventually(lambda: claim.done() or sessions(watcher, WAITS) == 1)
        deleting.commit()
        claim.result(WAIT_TIMEOUT)
    assert deliver.admin.execute("select from billing.claims where user_id = %s", [A]).rowcount == 0
    assert deliver(renewal()) == Outcome("parked", "unknown_user")
