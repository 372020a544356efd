"""A customer of the shop: an account, a payment and its events, and what the database has about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg

from support.recorded import session_event
from support.shop import Shop
from support.waiting import eventually

_WAITING = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
_numbers: Iterator[int] = count(1)


@dataclass(frozen=True)
class Customer:
    """The ids of a person and of their purchase of 100 credits for 10.00. Nothing exists before its method."""

    shop: Shop
    user: str
    name: str

    @property
    def email(self) -> str:
        return f"{self.user}@example.com"

    @property
    def payment(self) -> str:
        return f"pi_{self.name}"

    @property
    def event(self) -> str:
        return f"evt_{self.name}"

    def sign_up(self) -> None:
        self.shop.sign_up(self.user)

    def pay(self, **fields: Any) -> None:
        """Deliver the paid session. Without an account, or with other ``fields``, it is parked."""
        values = {"user_id": self.user, "payment_intent": self.payment, "id": f"cs_{self.name}", "customer": None}
        self.shop.deliver(session_event(event_id=self.event, **{"amount": 1000, **values, **fields}))

    def balance(self) -> int:
        return self.shop.balance(self.user)

    def is_parked(self) -> bool:
        query = "select from billing.parked_events where event_id = %s and resolved_at is null"
        return bool(self.shop.admin.execute(query, [self.event]).rowcount)

    @contextmanager
    def busy(self) -> Iterator[Callable[[int], None]]:
        """Lock the person's rows until the end of the block.

        Yields a function that waits until so many sessions wait for a lock.
        """
        database = self.shop.database
        with psycopg.connect(database.admin_url) as owner, psycopg.connect(database.superuser_url) as watcher:
            watcher.autocommit = True
            owner.execute("select from public.users where id = %s for update", [self.user])
            owner.execute("select from billing.parked_events where event_id = %s for update", [self.event])
            yield lambda number: eventually(lambda: watcher.execute(_WAITING).rowcount >= number)

    def actions(self) -> list[tuple[str, str, str, str]]:
        """Return what operators did about the person: action, name, channel and reason."""
        subjects = [self.user, self.payment, self.event]
        query = (
            "select action, by, channel, reason from billing.operator_actions where subject = any (%s) order by number"
        )
        return self.shop.admin.execute(query, [subjects]).fetchall()


def new_customer(shop: Shop) -> Customer:
    """Return a customer that no other test has."""
    return Customer(shop, str(uuid4()), f"browser{next(_numbers)}")
