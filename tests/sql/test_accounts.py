"""public.users follows auth.users, and no sign-up fails because of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.roles import ALICE, BOB, assert_refused, connected, sign_up
from webhook.ledger.migrate import migrate

Admin = psycopg.Connection[Any]


def users(admin: Admin) -> dict[str, str | None]:
    """Return the email address of each user."""
    return {str(user): email for user, email in admin.execute("select id, email from public.users").fetchall()}


def sign_up_as(database: Database, role: str, email: str | None = "a@example.com", user: str = ALICE) -> None:
    with connected(database, role, login=role) as auth:
        auth.execute("insert into auth.users (id, email, phone) values (%s, %s, '1')", [user, email])


def without_triggers(database: Database, *statements: str) -> None:
    """Run statements while no trigger fires, as in a restore."""
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute("set session_replication_role = replica")
        for statement in statements:
            superuser.execute(statement)


@pytest.fixture
def forgotten(database: Database, admin: Admin) -> Admin:
    """Alice has no row in public.users, and Bob's has another email address."""
    sign_up(admin, ALICE, BOB)
    without_triggers(
        database,
        f"delete from public.users where id = '{ALICE}'",
        f"update public.users set email = 'old@example.com' where id = '{BOB}'",
    )
    return admin


@pytest.mark.parametrize("email", ["a@example.com", None, ""])
def test_sign_up_by_supabase_auth_creates_the_user(database: Database, admin: Admin, email: str | None) -> None:
    """An account by phone has no email address."""
    sign_up_as(database, "supabase_auth_admin", email)
    assert users(admin) == {ALICE: email}


def test_sign_up_with_the_email_of_another_account_succeeds(admin: Admin) -> None:
    """With single sign-on, two accounts may share an address."""
    admin.execute("insert into auth.users (id, email) values (%s, 'a@example.com')", [ALICE])
    admin.execute("insert into auth.users (id, email) values (%s, 'a@example.com')", [BOB])
    assert users(admin) == {ALICE: "a@example.com", BOB: "a@example.com"}


def test_sign_up_whose_user_exists_sets_the_email(admin: Admin) -> None:
    """A trigger of the application may insert the row first."""
    admin.execute(
        """
        create function public.first() returns trigger language plpgsql as
            $$begin insert into public.users (id) values (new.id); return new; end$$;
        create trigger a_first after insert on auth.users for each row execute function public.first()
        """
    )
    sign_up(admin, ALICE)
    assert users(admin) == {ALICE: "a@example.com"}


def test_sign_up_runs_before_triggers_of_the_application(admin: Admin) -> None:
    """They may grant a bonus, which needs the row."""
    admin.execute(
        """
        create function public.bonus() returns trigger language plpgsql as $$begin
            insert into public.transactions (user_id, amount, type) values (new.id, 5, 'REFUND'); return new;
        end$$;
        create trigger on_auth_user_created after insert on auth.users for each row execute function public.bonus()
        """
    )
    sign_up(admin, ALICE)
    assert admin.execute("select credits_balance from public.users").fetchall() == [(5,)]


def test_sign_up_succeeds_if_public_users_refuses_the_row(admin: Admin) -> None:
    """The row is missing, a warning names the account, and copy_accounts() adds the row later."""
    admin.execute("alter table public.users add constraint broken check (email <> 'a@example.com')")
    notices: list[str] = []
    admin.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    sign_up(admin, ALICE)
    assert users(admin) == {}
    assert [ALICE in each for each in notices] == [True]
    admin.execute("alter table public.users drop constraint broken")
    assert admin.execute("select billing.copy_accounts()").fetchall() == [(1,)]
    assert users(admin) == {ALICE: "a@example.com"}


def test_email_change_by_supabase_auth_reaches_the_user(database: Database, admin: Admin) -> None:
    sign_up(admin, ALICE, BOB)
    with connected(database, "supabase_auth_admin", login="supabase_auth_admin") as auth:
        auth.execute("update auth.users set email = 'new@example.com' where id = %s", [ALICE])
        auth.execute("update auth.users set email = null where id = %s", [BOB])
    assert users(admin) == {ALICE: "new@example.com", BOB: None}


def test_email_change_keeps_the_balance(owner: Admin) -> None:
    owner.execute("update auth.users set email = 'new@example.com'")
    rows = owner.execute("select email, credits_balance from public.users order by credits_balance").fetchall()
    assert rows == [("new@example.com", 50), ("new@example.com", 100)]


def test_migrate_adds_missing_users_and_corrects_emails(forgotten: Admin, database: Database) -> None:
    assert migrate(database.admin_url).copied == 2
    assert users(forgotten) == {ALICE: "a@example.com", BOB: "b@example.com"}
    assert migrate(database.admin_url).copied == 0


def test_count_uncopied_accounts_returns_numbers_alone(forgotten: Admin, database: Database) -> None:
    del forgotten
    with connected(database, "service_role") as worker:
        assert worker.execute("select * from billing.count_uncopied_accounts()").fetchall() == [(1, 1)]


def test_erased_user_is_neither_counted_nor_copied(owner: Admin) -> None:
    """The account may exist for some time after its user was erased."""
    owner.execute("select billing.erase_user(%s)", [ALICE])
    owner.execute("update auth.users set email = 'new@example.com'")
    assert owner.execute("select * from billing.count_uncopied_accounts()").fetchall() == [(0, 0)]
    assert owner.execute("select billing.copy_accounts()").fetchall() == [(0,)]
    assert list(users(owner)) == [BOB]


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_copy_accounts_is_refused_to_clients(database: Database, owner: Admin, role: str) -> None:
    del owner
    assert_refused(database, role, "select billing.copy_accounts()")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_count_uncopied_accounts_is_refused_to_clients(database: Database, owner: Admin, role: str) -> None:
    del owner
    assert_refused(database, role, "select * from billing.count_uncopied_accounts()")


def test_service_role_cannot_read_auth_users(database: Database, owner: Admin) -> None:
    del owner
    assert_refused(database, "service_role", "select id from auth.users")
