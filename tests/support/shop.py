"""The ledger of a few users, and a shop: a Stripe account together with the worker's database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from click.testing import CliRunner, Result

from support.claims_model import Change, Step
from support.databases import Database
from support.delivery import deliver_to
from support.model import Event
from support.recorded import USER_ID
from support.stripe_stand_in import StripeStandIn
from webhook import cli
from webhook.ledger.ledger import Ledger


class Books:
    """The ledger of three users. Events are recorded as the worker records them."""

    def __init__(self, admin: psycopg.Connection[Any], ledger: Ledger) -> None:
        self.admin = admin
        self.ledger = ledger
        self.users: list[str] = []

    def open(self) -> None:
        """Create three new users. The ledger is append-only, so no example can delete the rows of another."""
        query = "insert into auth.users (id) select gen_random_uuid() from generate_series(1, 3) returning id::text"
        self.users = [user for (user,) in self.admin.execute(query)]

    def deliver(self, event: Event) -> str:
        return deliver_to(self.ledger, event).name

    def take(self, step: Step) -> None:
        """Deliver an event, or let a user sign up or be erased."""
        match step:
            case Change("erase", user):
                self.admin.execute("select billing.erase_user(%s)", [user])
            case Change(_, user):
                self.admin.execute("insert into auth.users (id) values (%s)", [user])
            case _:
                assert self.deliver(step) in ("recorded", "duplicate", "ignored", "parked")

    def retry(self, reason: str) -> None:
        """Deliver the events again that are parked with this reason."""
        query = "select payload::text from billing.parked_events where reason = %s and resolved_at is null"
        for (text,) in self.admin.execute(f"{query} and event_type <> 'billing.sale'", [reason]).fetchall():
            self.deliver(json.loads(text))

    def parked_reasons(self) -> dict[str, str]:
        """Return the reasons of the parked events by their payment."""
        query = "select payment_id, reason from billing.parked_events where resolved_at is null"
        return dict(self.admin.execute(query).fetchall())

    def rows(self) -> list[tuple[str, int, int]]:
        """Return the ledger, oldest row first, as (stripe_id, credits, money in minor units)."""
        query = "select stripe_id, amount, money_amount from public.transactions order by created_at, stripe_id"
        return [(name, amount, money) for name, amount, money in self.admin.execute(query)]

    def balances(self) -> dict[str, int]:
        """Return the balances in credits, and check that each is the sum of its rows."""
        rows = self.admin.execute(
            "select u.id::text, u.credits_balance, coalesce(sum(t.amount), 0) from public.users u"
            " left join public.transactions t on t.user_id = u.id where u.id = any (%s::uuid[]) group by u.id",
            [self.users],
        ).fetchall()
        assert all(balance == total for _, balance, total in rows)
        return {user: balance for user, balance, _ in rows}

    def parked(self) -> int:
        """Return the number of events that are still parked."""
        return self.admin.execute("select from billing.parked_events where resolved_at is null").rowcount

    def size(self) -> tuple[Any, ...]:
        [(size,)] = self.admin.execute("select count(*) from public.transactions").fetchall()
        return size, self.parked()


def described(steps: Sequence[Step]) -> str:
    """Describe the steps of a failing example, one line each."""
    lines = []
    for event in steps:
        if isinstance(event, Change):
            lines.append(f"{event.action} {event.user_id}")
            continue
        source = event["data"]["object"]
        shown = ("id", "payment_intent", "amount", "amount_total", "amount_received", "status", "payment_status")
        shown += ("client_reference_id", "customer", "subscription", "created")
        fields = {key: source[key] for key in shown if key in source}
        entries = [entry["amount"] for entry in source.get("balance_transactions", [])]
        lines.append(f"{event['id']} {event['type']} {fields} {_named(source)} {entries or ''}")
    return "\n".join(lines)


def _named(source: dict[str, Any]) -> Any:
    details = (source.get("parent") or {}).get("subscription_details") or {}
    return source.get("metadata") or details or ""


@dataclass
class Shop:
    """A Stripe account, and a worker's database that may have missed some of its events."""

    stripe: StripeStandIn
    database: Database
    admin: psycopg.Connection[Any]
    ledger: Ledger

    def deliver(self, *events: dict[str, Any]) -> None:
        for event in events:
            deliver_to(self.ledger, event)

    def sign_up(self, *users: str) -> None:
        for user in users:
            self.admin.execute("insert into auth.users (id, email) values (%s, %s)", [user, f"{user}@example.com"])

    def happens(self, at: float, event: dict[str, Any]) -> None:
        """The event happens at Stripe, and its webhook is delivered."""
        self.stripe.add_events(event, at=at)
        self.deliver(event)

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run a command and return its result, which may hold an exception."""
        settings = self.stripe.settings(self.database.url) | {"OPERATOR_DATABASE_URL": self.database.operator_url}
        return CliRunner(env=settings | environment).invoke(cli.commands, arguments)

    def reconcile(self, *arguments: str, **environment: str) -> Result:
        return self.run("reconcile", *arguments, **environment)

    def found(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The summary of a run, with its items and its exit code."""
        result = self.reconcile("--json", *arguments, **environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        *items, summary = map(json.loads, result.stdout.splitlines())
        assert [each["type"] for each in (*items, summary)] == ["item"] * len(items) + ["summary"]
        return summary | {"items": items, "exit_code": result.exit_code}

    def missing(self, *arguments: str) -> dict[str, int]:
        """Return the credits of each item that a reconcile run reports, by id."""
        return {each["id"]: each["credits"] for each in self.found(*arguments)["items"]}

    def balance(self, user_id: str = USER_ID) -> int:
        [(balance,)] = self.admin.execute("select credits_balance from public.users where id = %s", [user_id])
        return int(balance)

    def balances(self) -> dict[str, int]:
        rows = self.admin.execute("select id, credits_balance from public.users")
        return {str(user): balance for user, balance in rows}

    def contents(self) -> list[Any]:
        tables = ("transactions", "sales", "reversals", "payment_links", "claims", "parked_events")
        return [
            self.admin.execute(f"select * from {schema}.{table} order by 1, 2").fetchall()
            for schema, table in [("public", tables[0]), *(("billing", name) for name in tables[1:])]
        ]


@contextmanager
def opened(database: Database, stripe: StripeStandIn) -> Iterator[Shop]:
    """Yield a shop that uses this database."""
    with (
        psycopg.connect(database.admin_url, autocommit=True) as admin,
        closing(Ledger(database.url)) as ledger,
    ):
        yield Shop(stripe, database, admin, ledger)
