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
from support.waiting import PATIENCE, eventually
from support.worker import signed

LANES = 12
"""The number of deliveries in flight."""
SALES_IN_A_ROUND = 10
LOOKED_AT = 10
"""One in so many acknowledged deliveries is looked up in the database at once."""
CLIENT_TIMEOUT = 2
"""Seconds. Stripe's is longer; here the worker also meets clients that are gone before it answers."""

REFUNDS = (["succeeded"], ["pending", "succeeded"], ["pending", "failed"], ["succeeded", "canceled"])

# When each fact was recorded: an acknowledged delivery has its fact, recorded before the acknowledgement.
FACTS = """
select payment_id, min(recorded_at) from billing.sales where payment_id = any (%(ids)s) group by payment_id
union all
select reversal_id, recorded_at from billing.reversals where reversal_id = any (%(ids)s)
"""


@dataclass
class Load:
    """What was sent, what was answered, and what must be in the ledger."""

    url: str
    database_url: str
    """Where to look for what was acknowledged."""
    users: list[str]
    seed: int
    sales: list[Sale] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By status, or by what happened instead."""
    acknowledged: dict[str, datetime] = field(default_factory=dict)
    """When a fact was first acknowledged, by its id."""
    missing: list[str] = field(default_factory=list)
    """The acknowledged facts that the look-up right afterwards did not find."""
    looks: int = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        self._random, self._lock = Random(self.seed), Lock()
        self._deliveries: list[dict[str, Any]] = []

    @property
    def successes(self) -> int:
        return self.answers["200"]

    @property
    def troubles(self) -> int:
        """How often a delivery had to be repeated."""
        return self.answers.total() - self.successes

    def lane(self) -> None:
        """Deliver one after the other over a kept-alive connection."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=CLIENT_TIMEOUT)
        while event := self._next():
            for pause in _pauses():
                if self._is_acknowledged(connection, event):
                    break
                connection.close()
                time.sleep(pause)
            self._note(event)
        connection.close()

    def _next(self) -> dict[str, Any] | None:
        """The next delivery; once the load is over, only of the sales that have begun."""
        with self._lock:
            if not self._deliveries and not self.is_over:
                self._deliveries = self._round()
            return self._deliveries.pop() if self._deliveries else None

    def _round(self) -> list[dict[str, Any]]:
        """The deliveries of some more sales: some of them twice, some under a second event id, in any order."""
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

    def _note(self, event: dict[str, Any]) -> None:
        fact_id = fact_of(event)
        with self._lock:
            self.acknowledged.setdefault(fact_id, datetime.now(UTC))
            is_looked_at = len(self.acknowledged) % LOOKED_AT == 0
        if is_looked_at:
            self._look(fact_id)

    def _look(self, fact_id: str) -> None:
        try:
            with psycopg.connect(self.database_url, connect_timeout=2) as connection:
                is_there = connection.execute(FACTS, {"ids": [fact_id]}).rowcount
        except psycopg.OperationalError:
            return  # unreachable; lost() finds what is missing when the load is over
        with self._lock:
            self.looks += 1
            self.missing += [] if is_there else [fact_id]

    def lost(self) -> list[str]:
        """The acknowledged facts that are not there, or not since before they were acknowledged."""
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
    deadline = time.monotonic() + PATIENCE
    pause = 0.05
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 2, 0.4)
    raise AssertionError(f"not acknowledged within {PATIENCE} s")


@contextmanager
def delivering(load: Load) -> Iterator[None]:
    """Deliver from before the block until after it; in the end every delivery is acknowledged."""
    with ThreadPoolExecutor(LANES) as lanes:
        running = [lanes.submit(load.lane) for _ in range(LANES)]
        try:
            _more(load, running)
            yield
            _more(load, running)
        finally:
            load.is_over = True
        for lane in running:
            lane.result()


def _more(load: Load, running: list[Future[None]]) -> None:
    """Wait until more is acknowledged."""
    enough = load.successes + 40
    eventually(lambda: load.successes >= enough or any(lane.done() for lane in running))
