"""A load: deliveries of sales, refunds and duplicates, each retried as Stripe does until it is acknowledged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from random import Random
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import psycopg

from support.model import Payment, Refund, Sale, SaleTerms, events_of, new_id
from support.waiting import WAIT_TIMEOUT, eventually
from support.worker import signed

LANES = 12
"""The number of deliveries in flight."""
SALES_IN_A_ROUND = 10
LOOKUP_INTERVAL = 10
"""Every tenth acknowledged fact is looked up in the database at once."""
CLIENT_TIMEOUT = 2
"""Seconds. Stripe's timeout is longer; with this one, some clients disconnect before the worker answers."""

REFUNDS = (["succeeded"], ["pending", "succeeded"], ["pending", "failed"], ["succeeded", "canceled"])

# When each fact was recorded. The fact of a delivery must be recorded before its acknowledgement.
FACTS = """
select payment_id, min(recorded_at) from billing.sales where payment_id = any (%(ids)s) group by payment_id
union all
select reversal_id, recorded_at from billing.reversals where reversal_id = any (%(ids)s)
"""


@dataclass
class Load:
    """The deliveries, their answers, and the sales that must be in the ledger."""

    url: str
    database_url: str
    """The database in which acknowledged facts are looked up."""
    users: list[str]
    seed: int
    sales: list[Sale] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """Counts by status, or by exception if there was no answer."""
    acknowledged: dict[str, datetime] = field(default_factory=dict)
    """When a fact was first acknowledged, by its id."""
    missing: list[str] = field(default_factory=list)
    """The acknowledged facts that the lookup right afterwards did not find."""
    lookups: int = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        self._random, self._lock = Random(self.seed), Lock()
        self._deliveries: list[dict[str, Any]] = []

    @property
    def successes(self) -> int:
        return self.answers["200"]

    @property
    def failures(self) -> int:
        """The number of delivery attempts that failed."""
        return self.answers.total() - self.successes

    def lane(self) -> None:
        """Deliver events one by one over a kept-alive connection."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=CLIENT_TIMEOUT)
        while event := self._next():
            for pause in _pauses():
                if self._is_acknowledged(connection, event):
                    break
                connection.close()
                time.sleep(pause)
            self._acknowledge(event)
        connection.close()

    def _next(self) -> dict[str, Any] | None:
        """The next delivery. Once the load is over, there are no deliveries of new sales."""
        with self._lock:
            if not self._deliveries and not self.is_over:
                self._deliveries = self._round()
            return self._deliveries.pop() if self._deliveries else None

    def _round(self) -> list[dict[str, Any]]:
        """The deliveries of new sales in any order: some of them twice, some under a second event id."""
        sales = [self._sale() for _ in range(SALES_IN_A_ROUND)]
        self.sales += sales
        events = events_of(sales)
        copies = self._random.sample(events, len(events) // 3)
        twins = [{**event, "id": new_id("evt")} for event in self._random.sample(events, len(events) // 3)]
        deliveries = [*events, *copies, *twins]
        self._random.shuffle(deliveries)
        return deliveries

    def _sale(self) -> Sale:
        money = self._random.randint(1, 3000)
        refunds = [Refund(self._random.randint(1, 1000), statuses) for statuses in self._random.sample(REFUNDS, 2)]
        terms = SaleTerms(self._random.choice(self.users), self._random.randint(1, 1000), money)
        return Sale({"session": terms}, [Payment(refunds[: self._random.randint(0, 2)])])

    def _is_acknowledged(self, connection: HTTPConnection, event: dict[str, Any]) -> bool:
        try:
            connection.request("POST", "/webhook", *signed(event))
            response = connection.getresponse()
            response.read()
            answer = str(response.status)
        except (OSError, HTTPException) as error:
            answer = type(error).__name__
        with self._lock:
            self.answers[answer] += 1
        return answer == "200"

    def _acknowledge(self, event: dict[str, Any]) -> None:
        fact_id = fact_of(event)
        with self._lock:
            self.acknowledged.setdefault(fact_id, datetime.now(UTC))
            is_due = len(self.acknowledged) % LOOKUP_INTERVAL == 0
        if is_due:
            self._look_up(fact_id)

    def _look_up(self, fact_id: str) -> None:
        try:
            with psycopg.connect(self.database_url, connect_timeout=2) as connection:
                is_there = connection.execute(FACTS, {"ids": [fact_id]}).rowcount
        except psycopg.OperationalError:
            return  # the database is unreachable; lost() checks this fact when the load is over
        with self._lock:
            self.lookups += 1
            self.missing += [] if is_there else [fact_id]

    def lost(self) -> list[str]:
        """The acknowledged facts that are missing, or were recorded after their acknowledgement."""
        with psycopg.connect(self.database_url) as connection:
            recorded = dict(connection.execute(FACTS, {"ids": list(self.acknowledged)}).fetchall())
        never = datetime.max.replace(tzinfo=UTC)
        return [fact_id for fact_id, at in self.acknowledged.items() if recorded.get(fact_id, never) > at]


def fact_of(event: dict[str, Any]) -> str:
    """The id of the event's fact in the ledger."""
    source = event["data"]["object"]
    return str(source["payment_intent"] if source["object"] == "checkout.session" else source["id"])


def _pauses() -> Iterator[float]:
    """Seconds between the attempts; AssertionError after the timeout."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    pause = 0.05
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 2, 0.4)
    raise AssertionError(f"not acknowledged within {WAIT_TIMEOUT} s")


@contextmanager
def delivering(load: Load) -> Iterator[None]:
    """Deliver before, during and after the block. At the end, every delivery is acknowledged."""
    with ThreadPoolExecutor(LANES) as lanes:
        running = [lanes.submit(load.lane) for _ in range(LANES)]
        try:
            _wait_for_more(load, running)
            yield
            _wait_for_more(load, running)
        finally:
            load.is_over = True
        for lane in running:
            lane.result()


def _wait_for_more(load: Load, running: list[Future[None]]) -> None:
    """Wait until 40 more deliveries are acknowledged."""
    enough = load.successes + 40
    eventually(lambda: load.successes >= enough or any(lane.done() for lane in running))
