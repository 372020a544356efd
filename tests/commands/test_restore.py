"""A restore from a backup, as in docs/how-to/restore.md: reconcile records the later sales."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from support.databases import Database, Server, new_folder
from support.model import new_id
from support.reconciliation import days_ago
from support.recorded import refund_event, session_event
from support.roles import add
from support.shop import Shop, opened
from support.stripe_stand_in import StripeStandIn
from webhook.dev.cluster import environment, programs
from webhook.ledger.migrate import migrate

ALICE, BOB, CAROL = (str(uuid4()) for _ in range(3))


def run(server: Server, program: str, *arguments: str) -> None:
    """Run a program of Postgres, such as pg_dump, in the server's version."""
    major = server.connection.info.server_version // 10000
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    folder = programs() if major == 18 else debian
    if not folder.is_dir():
        pytest.skip(f"no {program} of Postgres {major} here")
    command = [folder / program, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def sale(user_id: str, payment_id: str) -> dict[str, Any]:
    """Return a session that sells 100 credits for 10.00."""
    return session_event(
        event_id=new_id("evt"), id=new_id("cs"), payment_intent=payment_id, user_id=user_id, credits=100, amount=1000
    )


def refund(payment_id: str, amount: int) -> dict[str, Any]:
    return refund_event(event_id=new_id("evt"), id=new_id("re"), payment_intent=payment_id, amount=amount)


@pytest.fixture
def backup(server: Server, database: Database, stripe: StripeStandIn) -> Iterator[str]:
    """The file of a backup from a day ago. Alice had bought and spent, and Bob had bought."""
    with opened(database, stripe) as shop:
        shop.sign_up(ALICE, BOB)
        shop.happens(days_ago(5), sale(ALICE, "pi_alice"))
        add(shop.admin, ALICE, -30, type="GENERATION")
        assert shop.run("reconcile", "--since", "10d", "--until", "2d").exit_code == 0
        shop.happens(days_ago(1.5), sale(BOB, "pi_bob"))
    with new_folder() as folder:
        file = str(folder / "backup")
        run(server, "pg_dump", "--format=custom", f"--file={file}", database.admin_url)
        yield file


@pytest.fixture
def lost(database: Database, stripe: StripeStandIn, backup: str) -> Iterator[Shop]:
    """The shop at the time of its loss. After the backup, Alice and Carol bought, and Bob was refunded."""
    del backup
    with opened(database, stripe) as shop:
        shop.happens(days_ago(0.5), sale(ALICE, "pi_more"))
        shop.happens(days_ago(0.5), refund("pi_bob", 250))
        shop.sign_up(CAROL)
        shop.happens(days_ago(0.4), sale(CAROL, "pi_carol"))
        assert shop.run("reconcile").exit_code == 0
        assert shop.balances() == {ALICE: 170, BOB: 75, CAROL: 100}
        yield shop


@pytest.fixture
def restored(server: Server, lost: Shop, backup: str) -> Iterator[Shop]:
    """The same shop on a new database, restored from that backup."""
    with server.new_database("template0") as database:
        run(server, "pg_restore", "--exit-on-error", f"--dbname={database.superuser_url}", backup)
        with opened(database, lost.stripe) as shop:
            yield shop


def test_restored_database_equals_the_backup(restored: Shop) -> None:
    """Balances are not counted twice, and there is nothing to migrate."""
    assert restored.balances() == {ALICE: 70, BOB: 100}
    assert restored.run("audit").exit_code == 0
    assert migrate(restored.database.admin_url).applied == ()


def test_reconcile_after_a_restore_records_later_events(restored: Shop) -> None:
    """Without --since, it begins after the runs in the backup, not after the lost later ones."""
    assert restored.run("reconcile").exit_code == 1
    assert restored.balances() == {ALICE: 170, BOB: 75}
    [(reason,)] = restored.admin.execute("select reason from billing.parked_events")
    assert reason == "unknown_user"


def test_restored_database_with_lost_accounts_back_is_complete(lost: Shop, restored: Shop) -> None:
    """An account that is created again with its id gets its purchases."""
    restored.run("reconcile")
    restored.sign_up(CAROL)
    assert restored.run("retry").exit_code == 0
    assert restored.balances() == lost.balances()
    audit = restored.run("audit", "--stripe")
    assert (audit.exit_code, audit.stdout) == (0, "")
    assert restored.run("reconcile").exit_code == 0


def test_restored_database_keeps_its_access_rules(restored: Shop) -> None:
    """Triggers, privileges and row-level security are restored with the tables."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        restored.admin.execute("update public.users set credits_balance = 1000000")
    report = restored.run("doctor").stdout
    assert "ok       row-level security" in report
    assert "ok       permissions" in report
