"""A database restored from a backup, as in docs/how-to/restore.md: what was sold since comes back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import responses
from click.testing import CliRunner, Result

from support.databases import Database, Server, new_folder
from support.delivery import deliver_to
from support.model import new_id
from support.recorded import refund_event, session_event
from support.stripe_stand_in import DAY, StripeStandIn, serving
from webhook import cli
from webhook.dev.cluster import environment, programs
from webhook.ledger.ledger import Ledger
from webhook.ledger.migrate import migrate

ALICE, BOB, CAROL = (str(uuid4()) for _ in range(3))


def run(server: Server, program: str, *arguments: str) -> None:
    """Run one of Postgres's own programs, of the server's version."""
    major = server.connection.info.server_version // 10000
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    folder = programs() if major == 18 else debian
    if not folder.is_dir():
        pytest.skip(f"no {program} of Postgres {major} here")
    command = [folder / program, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def days_ago(days: float) -> float:
    return time.time() - days * DAY


def sale(user_id: str, payment_id: str) -> dict[str, Any]:
    """100 credits for 10.00."""
    return session_event(
        event_id=new_id("evt"), id=new_id("cs"), payment_intent=payment_id, user_id=user_id, credits=100, amount=1000
    )


def refund(payment_id: str, amount: int) -> dict[str, Any]:
    return refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment_id, amount=amount)


@dataclass
class Shop:
    """A Stripe account, and the worker on one database."""

    stripe: StripeStandIn
    database: Database

    def sign_up(self, *users: str) -> None:
        for user in users:
            self.execute("insert into auth.users (id, email) values (%s, %s)", user, f"{user}@example.com")

    def execute(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            cursor = connection.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []

    def happens(self, at: float, event: dict[str, Any]) -> None:
        """It happens at Stripe, whose webhook is delivered."""
        self.stripe.happened(event, at=at)
        with closing(Ledger(self.database.url)) as ledger:
            deliver_to(ledger, event)

    def run(self, *arguments: str) -> Result:
        settings = self.stripe.settings(self.database.url)
        return CliRunner(env=settings).invoke(cli.commands, arguments)

    def balances(self) -> dict[str, int]:
        return {str(user): balance for user, balance in self.execute("select id, credits_balance from public.users")}


@pytest.fixture
def stripe(stripe_api: responses.RequestsMock) -> Iterator[StripeStandIn]:
    with serving(StripeStandIn()) as stand_in:
        stripe_api.add_passthru(stand_in.url)
        yield stand_in


@pytest.fixture
def backup(server: Server, database: Database, stripe: StripeStandIn) -> Iterator[str]:
    """The file of a backup made a day ago, when Alice had bought and spent and Bob had bought."""
    shop = Shop(stripe, database)
    shop.sign_up(ALICE, BOB)
    shop.happens(days_ago(5), sale(ALICE, "pi_alice"))
    shop.execute("insert into public.transactions (user_id, amount, type) values (%s, -30, 'GENERATION')", ALICE)
    assert shop.run("reconcile", "--since", "10d", "--until", "2d").exit_code == 0
    shop.happens(days_ago(1.5), sale(BOB, "pi_bob"))
    with new_folder() as folder:
        file = str(folder / "backup")
        run(server, "pg_dump", "--format=custom", f"--file={file}", database.admin_url)
        yield file


@pytest.fixture
def lost(database: Database, stripe: StripeStandIn, backup: str) -> Shop:
    """The shop of which there is only that backup left, once Bob was refunded, and Carol came and bought, too."""
    del backup
    shop = Shop(stripe, database)
    shop.happens(days_ago(0.5), sale(ALICE, "pi_more"))
    shop.happens(days_ago(0.5), refund("pi_bob", 250))
    shop.sign_up(CAROL)
    shop.happens(days_ago(0.4), sale(CAROL, "pi_carol"))
    assert shop.run("reconcile").exit_code == 0
    assert shop.balances() == {ALICE: 170, BOB: 75, CAROL: 100}
    return shop


@pytest.fixture
def restored(server: Server, lost: Shop, backup: str) -> Iterator[Shop]:
    """The same shop on a new database from that backup."""
    with server.new_database("template0") as database:
        run(server, "pg_restore", "--exit-on-error", f"--dbname={database.superuser_url}", backup)
        yield Shop(lost.stripe, database)


def test_restored_database_is_what_was_backed_up(restored: Shop) -> None:
    """Balances are restored with their ledger, not counted twice, and there is nothing to migrate."""
    assert restored.balances() == {ALICE: 70, BOB: 100}
    assert restored.run("audit").exit_code == 0
    assert migrate(restored.database.admin_url).applied == ()


def test_restored_database_after_reconcile_has_what_happened_since(restored: Shop) -> None:
    """Without --since: where it begins is told by the runs of the backup, not by the later ones that were lost."""
    assert restored.run("reconcile").exit_code == 1
    assert restored.balances() == {ALICE: 170, BOB: 75}
    [(reason,)] = restored.execute("select reason from billing.parked_events")
    assert reason == "unknown_user"


def test_restored_database_once_lost_accounts_are_back_is_whole(lost: Shop, restored: Shop) -> None:
    """An account that is made again with its id gets what it bought."""
    restored.run("reconcile")
    restored.sign_up(CAROL)
    assert restored.run("retry").exit_code == 0
    assert restored.balances() == lost.balances()
    audit = restored.run("audit", "--stripe")
    assert (audit.exit_code, audit.stdout) == (0, "")
    assert restored.run("reconcile").exit_code == 0


def test_restored_database_is_guarded_as_before(restored: Shop) -> None:
    """Triggers, rights and row-level security come back with the tables."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        restored.execute("update public.users set credits_balance = 1000000")
    told = restored.run("doctor").stdout
    assert "ok       row-level security" in told
    assert "ok       permissions" in told
