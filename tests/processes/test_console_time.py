"""A page of the console ends after five seconds, though a server takes its request and never answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import psycopg
import pytest

from support.console import ANN, BOB, OPERATOR_TOKEN, VIEWER_TOKEN, bearer
from support.databases import Database
from support.pg_proxy import PgProxy, proxied
from support.roles import ALICE, sign_up
from support.stripe_stand_in import StripeStandIn, serving
from support.worker import Worker, sale, working

TOKENS = ",".join(f"{each.name}:{each.role}:{each.digest}" for each in (ANN, BOB))
MOST_SECONDS = 7.0
"""Five, and two more for a busy machine."""


def get(worker: Worker, path: str, token: str) -> tuple[int, str, float]:
    """Return the status of a page, its text and the seconds that it took."""
    started = monotonic()
    with worker.connected() as connection:
        connection.request("GET", path, headers=bearer(token))
        response = connection.getresponse()
        return response.status, response.read().decode(), monotonic() - started


@pytest.fixture
def proxy(database: Database) -> Iterator[PgProxy]:
    """A proxy in front of the database of the console's operators, which is that of its pages, too."""
    with proxied(database.operator_url) as proxy:
        yield proxy


@pytest.mark.parametrize("token", [VIEWER_TOKEN, OPERATOR_TOKEN], ids=["viewer", "operator"])
def test_page_ends_though_the_database_is_silent(
    database: Database, proxy: PgProxy, tmp_path: Path, token: str
) -> None:
    """Its connection waits for ever: no timeout of the server reaches the console."""
    assert database
    with working(proxy.url, tmp_path, processes=1, CONSOLE_TOKENS=TOKENS) as worker:
        assert get(worker, "/console/parked", token)[0] == 200
        proxy.is_silent = True
        status, text, seconds = get(worker, "/console/parked", token)
        assert (status, "took too long" in text) == (503, True)
        assert seconds < MOST_SECONDS
        proxy.is_silent = False
        assert get(worker, "/console/parked", token)[0] == 200


def test_page_ends_though_stripe_is_silent(database: Database, admin: psycopg.Connection, tmp_path: Path) -> None:
    """Two requests that each wait less than their own timeout. Meanwhile deliveries are answered."""
    sign_up(admin, ALICE)
    stripe, is_over = StripeStandIn(), Event()
    stripe.before_answer = lambda _: is_over.wait(3.5)
    variables = {"CONSOLE_TOKENS": TOKENS, "STRIPE_API_KEY": "rk_test_1"}
    with (
        serving(stripe),
        working(database.url, tmp_path, processes=1, STRIPE_API_BASE=stripe.url, **variables) as worker,
    ):
        status, text, seconds = get(worker, "/console/search?stripe=1&q=ABCD-0001", VIEWER_TOKEN)
        assert (status, "Stripe does not answer" in text) == (503, True)
        assert seconds < MOST_SECONDS
        assert len(stripe.requests) == 2
        assert worker.deliver(sale(ALICE, "1")).outcome == "recorded"
        is_over.set()
