"""Fixtures for the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
import responses

from support.audit import GENERATION, HOLD, Audit, Corrupt, Worker
from support.commands import invoke
from support.databases import Database, Server
from support.generations import capture, refund_generation, reserve
from support.recorded import USER_ID
from support.roles import ALICE, BOB, add, connected, record, refund, sale, sign_up
from support.shop import Shop, opened
from support.stripe_stand_in import StripeStandIn, serving
from webhook.stripe_api import bulk as stripe_reader

Admin = psycopg.Connection[Any]


@pytest.fixture
def bare(server: Server) -> Iterator[Database]:
    """A plain Postgres database, without Supabase's objects."""
    with server.new_database("template1") as database:
        yield database


@pytest.fixture
def stripe(stripe_api: responses.RequestsMock) -> Iterator[StripeStandIn]:
    """A stand-in for Stripe's API over real HTTP, with an account without objects."""
    with serving(StripeStandIn()) as stand_in:
        stripe_api.add_passthru(stand_in.url)
        yield stand_in


@pytest.fixture
def shop(database: Database, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop with the user of the recorded events. Retries wait for at most 50 ms."""
    monkeypatch.setattr(stripe_reader, "_MAX_BACKOFF", 0.05)
    with opened(database, stripe) as shop:
        shop.sign_up(USER_ID)
        yield shop


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
def settled(worker: Worker) -> Worker:
    """The worker's connection. Alice bought 100 credits, 25 were refunded, and two generations of 10 were refunded.

    The second one was reserved for 20.
    """
    record(worker, sale("pi_1", ALICE))
    record(worker, refund("re_1", "pi_1", 250))
    add(worker, ALICE, -10, type="GENERATION", id=GENERATION)
    add(worker, ALICE, 10, type="REFUND", refunds=GENERATION)
    reserve(worker, ALICE, 20, HOLD)
    capture(worker, HOLD, 10)
    refund_generation(worker, HOLD)
    return worker


@pytest.fixture
def corrupt(database: Database, settled: Worker) -> Corrupt:
    """Run statements without triggers, foreign keys and grants, then by default set balances to the ledger's sums."""
    del settled

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
