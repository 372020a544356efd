"""Concurrent deliveries to real worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.ledger_queries import WAITS, amounts, held, lock_of, new_user, sessions
from support.recorded import VERSIONS, payment_intent_event, session_event
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import BATCHES, Answer, Worker, deliver_at_once, sale, working

SESSION_EVENTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")


@pytest.fixture(scope="module")
def workers(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """Two workers of one process each. On a shared port, the kernel could send every connection to one process."""
    folder = tmp_path_factory.mktemp("workers")
    with (
        working(shared_database.url, folder, processes=1) as one,
        working(shared_database.url, folder, processes=1) as other,
    ):
        yield [one, other]


def deliver_behind(
    lock: str, shared_database: Database, workers: list[Worker], events: list[dict[str, Any]]
) -> list[Answer]:
    """Deliver all events at once, and hold the lock until every batch of each process waits in Postgres."""
    with held(shared_database.superuser_url, lock) as lock_holder, ThreadPoolExecutor(1) as sender:
        answers = sender.submit(deliver_at_once, events, workers)
        eventually(lambda: answers.done() or sessions(lock_holder, WAITS) >= len(workers) * BATCHES)
        lock_holder.rollback()
        return answers.result(WAIT_TIMEOUT)


def one_sale(user_id: str, number: int) -> dict[str, Any]:
    """An event of the same sale. The numbers cycle through event types, API versions and 18 event ids."""
    version, event_id = VERSIONS[number // 3 % 3], f"evt_one_{number % 18}"
    terms: dict[str, Any] = {"user_id": user_id, "credits": 100, "amount": 1000, "currency": "usd"}
    if number % 3 == 2:
        return payment_intent_event(version=version, event_id=event_id, id="pi_one", **terms)
    terms |= {"id": "cs_test_one", "payment_intent": "pi_one"}
    return session_event(SESSION_EVENTS[number % 3], version, event_id=event_id, **terms)


@pytest.fixture(scope="module")
def buyer(superuser: psycopg.Connection) -> str:
    return new_user(superuser)


@pytest.fixture(scope="module")
def answers_to_one_sale(buyer: str, shared_database: Database, workers: list[Worker]) -> list[Answer]:
    events = [one_sale(buyer, number) for number in range(100)]
    return deliver_behind(lock_of(buyer), shared_database, workers, events)


@pytest.mark.usefixtures("answers_to_one_sale")
def test_sale_delivered_100_times_at_once_has_one_purchase_row(superuser: psycopg.Connection, buyer: str) -> None:
    query = "select type::text, amount, stripe_id from public.transactions where user_id = %s"
    assert superuser.execute(query, [buyer]).fetchall() == [("PURCHASE", 100, "pi_one")]


@pytest.mark.usefixtures("answers_to_one_sale")
def test_sale_delivered_100_times_at_once_is_in_the_balance_once(superuser: psycopg.Connection, buyer: str) -> None:
    query = "select credits_balance from public.users where id = %s"
    assert superuser.execute(query, [buyer]).fetchall() == [(100,)]


def test_sale_delivered_100_times_at_once_is_always_answered_200(answers_to_one_sale: list[Answer]) -> None:
    assert [answer.status for answer in answers_to_one_sale] == [200] * 100


def test_sale_delivered_100_times_at_once_has_99_duplicates(answers_to_one_sale: list[Answer]) -> None:
    outcomes = Counter(answer.outcome for answer in answers_to_one_sale)
    assert outcomes == {"recorded": 1, "duplicate": 99}


def test_sales_of_one_user_delivered_at_once_add_up(
    shared_database: Database, superuser: psycopg.Connection, workers: list[Worker]
) -> None:
    user_id = new_user(superuser)
    sales = [sale(user_id, f"own{number}", credits=number) for number in range(1, 101)]
    answers = deliver_behind(lock_of(user_id), shared_database, workers, sales)
    assert Counter(answer.outcome for answer in answers) == {"recorded": 100}
    assert amounts(superuser, user_id) == list(range(1, 101))


def test_sales_of_many_users_delivered_at_once_add_up(superuser: psycopg.Connection, workers: list[Worker]) -> None:
    """Each sale is delivered three times and recorded once."""
    user_ids = [new_user(superuser) for _ in range(10)]
    sales = [
        sale(user_id, f"many{user}_{number}", credits=number)
        for user, user_id in enumerate(user_ids)
        for number in range(1, 11)
    ]
    Random(2).shuffle(events := sales * 3)
    answers = deliver_at_once(events, workers, connections=30)
    assert Counter(answer.outcome for answer in answers) == {"recorded": 100, "duplicate": 200}
    assert [amounts(superuser, user_id) for user_id in user_ids] == [list(range(1, 11))] * 10


@pytest.fixture(scope="module")
def parked_answers(shared_database: Database, workers: list[Worker]) -> list[Answer]:
    event = sale("00000000-0000-4000-8000-000000000000", "stranger")
    lock = "lock table billing.parked_events in share row exclusive mode"
    return deliver_behind(lock, shared_database, workers, [event] * 50)


def test_concurrent_sale_of_an_unknown_user_is_answered_parked(
    parked_answers: list[Answer],
) -> None:
    """All 50 deliveries get 200 and the reason."""
    assert {answer.status for answer in parked_answers} == {200}
    assert [answer.body for answer in parked_answers] == [{"outcome": "parked", "reason": "unknown_user"}] * 50


@pytest.mark.usefixtures("parked_answers")
def test_concurrent_sale_of_an_unknown_user_is_parked_once(superuser: psycopg.Connection) -> None:
    """50 deliveries leave one parked event."""
    query = "select event_id, reason from billing.parked_events where resolved_at is null"
    assert superuser.execute(query).fetchall() == [("evt_stranger", "unknown_user")]
