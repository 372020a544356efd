"""The privileges in the database's catalog: a snapshot of all of them, and rules for functions, views and policies."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from support.databases import Database
from support.privileges import OWN_SCHEMAS, privileges, privileges_seen_by
from support.roles import execute
from webhook.dev.postgres import ADMIN
from webhook.ledger.migrate import migrate

# The privileges of every role but the owner, the default privileges, and the attributes and memberships of the roles.
# A new schema, table, column, function or owner fails the test until this list contains it.
PRIVILEGES = """
column billing.reconciliations.covered_until: service_role=update
column billing.reconciliations.finished_at: service_role=update
column public.generation_holds.captured_at: service_role=update
column public.generation_holds.expires_at: service_role=update
column public.generation_holds.released_at: service_role=update
column public.users.email: service_role=insert,update
column public.users.id: service_role=insert
database: public=connect,temporary
function auth.jwt(): owner=supabase_auth_admin public=execute
function auth.role(): owner=supabase_auth_admin public=execute
function auth.uid(): owner=supabase_auth_admin public=execute
function billing.add_action(bigint,uuid,text,text,text,text,text,text,bigint,bigint):
function billing.add_entry(uuid,bigint,public.transaction_type,text,text,bigint,text,text): service_role=execute
function billing.adjust(uuid,bigint,text,text,uuid,text,text,boolean): billing_operator=execute
function billing.affected_payments(text[]): service_role=execute
function billing.assign(text,uuid,bigint,text,text,uuid,bigint,text,text,boolean,bigint): billing_operator=execute
function billing.available_credits(uuid): service_role=execute
function billing.begin_reconciliation(timestamp with time zone,timestamp with time zone): service_role=execute
function billing.book_reversals(text[],billing.merged_sale,text,text): service_role=execute
function billing.changes_since(jsonb,text[]):
function billing.check_action_texts(text,text,text):
function billing.check_refunded_generation():
function billing.claimants(text[],text[]): service_role=execute
function billing.claimants_of(text[]): service_role=execute
function billing.clear_entries(text[],uuid,text,jsonb,text): service_role=execute
function billing.copy_account():
function billing.copy_accounts():
function billing.correction_id(text,jsonb): service_role=execute
function billing.count_uncopied_accounts(): service_role=execute
function billing.covered_until(): service_role=execute
function billing.credits_of_users(text[]):
function billing.discard(text[],text,text,text): billing_operator=execute
function billing.drop_discarded_payloads(): service_role=execute
function billing.drop_personal_data():
function billing.entries_of(text[]): service_role=execute
function billing.erase_user(uuid):
function billing.finish_reconciliation(bigint): service_role=execute
function billing.forget_accounts():
function billing.forget_users(uuid[]):
function billing.guard_credits_balance():
function billing.has_lost_claimant(jsonb): service_role=execute
function billing.held_credits(uuid,timestamp with time zone): service_role=execute
function billing.ids_in(jsonb): service_role=execute
function billing.ids_named_in(json): service_role=execute
function billing.ids_to_lock(text[]): service_role=execute
function billing.is_erased_user(uuid): service_role=execute
function billing.is_other_owner(uuid[],uuid[]): service_role=execute
function billing.is_recorded(jsonb): service_role=execute
function billing.is_settled(text[],billing.merged_sale): service_role=execute
function billing.known_assignment(text[],uuid,bigint,text,uuid,bigint):
function billing.knows_sale(jsonb): service_role=execute
function billing.lacks_nothing(billing.merged_sale): service_role=execute
function billing.lacks_refunds(text[],jsonb): service_role=execute
function billing.linked_payments(text[]): service_role=execute
function billing.lock_generation(uuid): service_role=execute
function billing.lock_holder(uuid): service_role=execute
function billing.lock_payments(text[]): service_role=execute
function billing.lock_sign_ups(jsonb): service_role=execute
function billing.lock_spender(uuid,bigint,uuid): service_role=execute
function billing.lock_users(jsonb): service_role=execute
function billing.merge_claim(jsonb): service_role=execute
function billing.merge_claims(jsonb,integer[]): service_role=execute
function billing.merge_link(jsonb): service_role=execute
function billing.merge_reversal(jsonb,text): service_role=execute
function billing.merge_sale(jsonb): service_role=execute
function billing.nameless_payments_of(uuid): service_role=execute
function billing.names_email(json,text): service_role=execute
function billing.names_user(json,uuid): service_role=execute
function billing.new_sales(jsonb,text[]): service_role=execute
function billing.next_stripe_id(text,text): service_role=execute
function billing.open_objects(timestamp with time zone): service_role=execute
function billing.park(text,text,text,text,text,text,text): service_role=execute
function billing.park_sale(text[],text,boolean): service_role=execute
function billing.parked_already(text,text): service_role=execute
function billing.payments_of_user(uuid): service_role=execute
function billing.post_correction(text[],billing.merged_sale,text,jsonb,text): service_role=execute
function billing.pseudonym_of(uuid): service_role=execute
function billing.purchase_of(text[],uuid): service_role=execute
function billing.reconcile(jsonb,boolean): service_role=execute
function billing.record(jsonb): service_role=execute
function billing.record_claim(jsonb,text): service_role=execute
function billing.record_delivery(jsonb,text): service_role=execute
function billing.record_fact(jsonb,text): service_role=execute
function billing.record_new_sales(billing.new_sale[]): service_role=execute
function billing.refuse_action_change():
function billing.refuse_assignment(text,billing.merged_sale,text,uuid):
function billing.refuse_debt(jsonb):
function billing.refuse_hold_change():
function billing.refuse_ledger_change():
function billing.refuse_refunded(uuid,text): service_role=execute
function billing.rejection_reason(jsonb): service_role=execute
function billing.remaining_credits(bigint,bigint,numeric): service_role=execute
function billing.reopen(text,text): service_role=execute
function billing.resolve(text): service_role=execute
function billing.resolve_refunded_totals(text[]): service_role=execute
function billing.reversals_of(text[],billing.merged_sale,text): service_role=execute
function billing.reversals_without_sale(timestamp with time zone): service_role=execute
function billing.revive_claims(uuid[]):
function billing.sale_of(text[]): service_role=execute
function billing.schema_version(): service_role=execute
function billing.settle(text[],billing.merged_sale,jsonb,text): service_role=execute
function billing.settle_again(text[],text): service_role=execute
function billing.settle_new_users():
function billing.settle_parked_sale(text): service_role=execute
function billing.settle_sale(text[],billing.merged_sale,jsonb,text): service_role=execute
function billing.sign_up_key(uuid): service_role=execute
function billing.unescaped(json): service_role=execute
function billing.unsettled_reason(billing.merged_sale): service_role=execute
function billing.withdraw_assignment(text[],bigint,bigint):
function public.authorize_generation(uuid,bigint,uuid): service_role=execute
function public.capture_generation(uuid,bigint): service_role=execute
function public.refund_generation(uuid): service_role=execute
function public.release_generation(uuid): service_role=execute
function public.reserve_generation(uuid,bigint,uuid,interval): service_role=execute
function public.update_user_credits():
role anon:
role authenticated:
role authenticator member of anon,authenticated,service_role:
role billing_operator:
role service_role bypassrls:
role supabase_auth_admin:
role webhook_admin createrole createdb bypassrls member of anon,authenticated,authenticator,service_role:
role webhook_operator member of billing_operator,service_role:
role webhook_worker member of service_role:
row billing.assignments: number,payment_id,user_id,credits,withdrawn_by:
row billing.claims: subject_id,user_id,level,customer_id,created,is_erased:
row billing.erased_users: user_hash,erased_at:
row billing.operator_actions: number,id,action,subject,by,channel,login,reason,description,credits_given,credits_taken,created_at:
row billing.parked_events: event_id,event_type,reason,payment_id,user_reference,payer_email,payload,parked_at,resolved_at,resolution,discarded_by,discard_reason,object_ids:
row billing.payment_links: invoice_id,payment_id:
row billing.reconciliations: id,since,until,started_at,finished_at,covered_until:
row billing.reversals: reversal_id,version,payment_id,money_amount,currency,event_id,recorded_at:
row billing.sales: payment_id,version,user_id,credits,money_amount,currency,paid,subscription_id,customer_id,erased_at,forgotten_at,recorded_at:
row billing.schema_migrations: version:
row public.generation_holds: id,user_id,amount,expires_at,captured_at,released_at,created_at:
row public.transactions: id,user_id,amount,type,stripe_id,payment_id,money_amount,currency,refunds,event_id,description,created_at:
row public.users: id,email,credits_balance,created_at:
schema auth: owner=supabase_auth_admin anon=usage authenticated=usage service_role=usage
schema billing: billing_operator=usage service_role=usage
schema public: owner=pg_database_owner public=usage
sequence billing.operator_actions_number_seq:
sequence billing.reconciliations_id_seq:
table auth.users: owner=supabase_auth_admin
table billing.assignments: service_role=select
table billing.claims: service_role=insert,select,update
table billing.erased_users: service_role=select
table billing.operator_actions: service_role=select
table billing.parked_events: service_role=insert,select,update
table billing.payment_links: service_role=insert,select
table billing.reconciliations: service_role=insert,select
table billing.reversals: service_role=insert,select,update
table billing.sales: service_role=insert,select,update
table billing.schema_migrations:
table public.generation_holds: authenticated=select service_role=insert,select
table public.transactions: authenticated=select service_role=insert,select
table public.users: authenticated=select service_role=select
type billing.merged_sale: service_role=usage
type billing.new_sale: service_role=usage
type public.transaction_type: public=usage
"""  # noqa: E501

# Changes that a review of tables and functions alone would miss.
PRIVILEGE_CHANGES = {
    "schema": """
        create schema api;
        create function api.everybody() returns setof public.users
            language sql security definer set search_path = '' return (select users from public.users limit 1);
        grant usage on schema api to anon
    """,
    "table_of_new_schema": "create schema api; create table api.mine (id integer)",
    "default_of_schema": "alter default privileges in schema public grant all on tables to anon",
    "default_everywhere": "alter default privileges grant all on functions to anon",
    "default_of_public": "alter default privileges revoke execute on functions from public",
    "default_of_another_role": "alter default privileges for role service_role grant select on tables to anon",
    "database": "grant create on database {database} to authenticated",
    "accounts": "grant select on auth.users to authenticated",
    "column_of_accounts": "grant select (email) on auth.users to anon",
    "function_of_auth": "create function auth.mine() returns integer language sql return 1",
    "bypassrls": "alter role authenticated bypassrls",
    "superuser": "alter role webhook_worker superuser",
    "createrole": "alter role service_role createrole",
    "membership": "grant service_role to anon",
    "membership_in_a_predefined_role": "grant pg_read_all_data to authenticated",
    "new_role_with_membership": "create role backdoor login in role service_role",
    "large_object": "select lo_create(1)",
    "owner_of_function": "alter function billing.guard_credits_balance() owner to service_role",
    "owner_of_table": "alter table billing.schema_migrations owner to service_role",
    "owner_of_schema": "alter schema billing owner to service_role",
    "owner_of_type": "alter type public.transaction_type owner to service_role",
}

EXPECTED_PRIVILEGES = PRIVILEGES.strip().splitlines()

SELF_HOSTED = """
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""


@pytest.mark.usefixtures("template")  # which grants billing_operator to its login
def test_privileges_match_the_expected_list(empty_database: Database) -> None:
    """It migrates an empty database: a copy of a template lacks the database's own privileges."""
    migrate(empty_database.admin_url)
    assert privileges(empty_database) == EXPECTED_PRIVILEGES


@pytest.mark.parametrize("way", PRIVILEGE_CHANGES)
def test_privilege_change_is_detected(bank: Database, way: str) -> None:
    """Each change makes the list differ from the expected one."""
    with psycopg.connect(bank.superuser_url) as connection:
        connection.execute(PRIVILEGE_CHANGES[way].format(database=bank.name))
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(ADMIN)))
        assert privileges_seen_by(connection) != EXPECTED_PRIVILEGES
        connection.rollback()


@pytest.mark.usefixtures("template")
def test_privileges_ignore_self_hosted_default_grants(empty_database: Database) -> None:
    """Self-hosted Supabase grants everything on new tables; the migrations revoke these grants."""
    with psycopg.connect(empty_database.admin_url) as owner:
        owner.execute(SELF_HOSTED)
    migrate(empty_database.admin_url)
    given = privileges(empty_database)
    assert [line for line in given if not line.startswith("default ")] == EXPECTED_PRIVILEGES


def test_security_definer_functions_match_the_list(owner: psycopg.Connection) -> None:
    """A caller's search path has no effect in them."""
    rows = execute(
        owner,
        f"""
        select proname, array_to_string(proconfig, ' ')
        from pg_proc
        where prosecdef and pronamespace in {OWN_SCHEMAS}
        order by 1
        """,
    )
    by_index = "enable_seqscan=off enable_hashjoin=off enable_mergejoin=off"
    assert rows == [
        ("adjust", "search_path=pg_catalog, pg_temp"),
        ("assign", "search_path=pg_catalog, pg_temp"),
        ("copy_account", "search_path=pg_catalog, pg_temp"),
        ("count_uncopied_accounts", "search_path=pg_catalog, pg_temp"),
        ("discard", "search_path=pg_catalog, pg_temp"),
        ("forget_accounts", "search_path=pg_catalog, pg_temp"),
        ("settle_new_users", f"search_path=pg_catalog, pg_temp lock_timeout=2s {by_index}"),
        ("update_user_credits", 'search_path=""'),
    ]


def test_every_function_sets_its_search_path(owner: psycopg.Connection) -> None:
    """Otherwise a caller's search path could replace the objects that a function uses."""
    rows = execute(
        owner,
        f"""
        select oid::regprocedure::text
        from pg_proc
        where
            pronamespace in {OWN_SCHEMAS}
            and pronamespace <> 'auth'::regnamespace
            and not coalesce(proconfig && array['search_path=""', 'search_path=pg_catalog, pg_temp'], false)
        """,
    )
    assert rows == []


def test_every_view_is_security_invoker(owner: psycopg.Connection) -> None:
    """A view that reads as its owner, or a materialized view, would bypass row-level security."""
    rows = execute(
        owner,
        f"""
        select oid::regclass::text
        from pg_class
        where
            relnamespace in {OWN_SCHEMAS}
            and (relkind = 'm' or (relkind = 'v' and not coalesce('security_invoker=true' = any (reloptions), false)))
        """,
    )
    assert rows == []


def test_every_table_has_row_level_security(owner: psycopg.Connection) -> None:
    rows = execute(
        owner,
        f"""
        select oid::regclass::text
        from pg_class
        where relnamespace in {OWN_SCHEMAS} and relkind in ('r', 'p') and not relrowsecurity
        """,
    )
    # dbmate's table. Only the owner may read it.
    assert rows == [("billing.schema_migrations",)]


def test_policies_match_the_expected_list(owner: psycopg.Connection) -> None:
    """Users read their own rows; every other policy is for service_role."""
    rows = execute(
        owner,
        """
        select schemaname || '.' || tablename, roles::text, cmd, permissive
        from pg_policies
        order by 1
        """,
    )
    assert rows == [
        ("billing.assignments", "{service_role}", "SELECT", "PERMISSIVE"),
        ("billing.claims", "{service_role}", "ALL", "PERMISSIVE"),
        ("billing.erased_users", "{service_role}", "SELECT", "PERMISSIVE"),
        ("billing.operator_actions", "{service_role}", "SELECT", "PERMISSIVE"),
        ("billing.parked_events", "{service_role}", "ALL", "PERMISSIVE"),
        ("billing.payment_links", "{service_role}", "ALL", "PERMISSIVE"),
        ("billing.reconciliations", "{service_role}", "ALL", "PERMISSIVE"),
        ("billing.reversals", "{service_role}", "ALL", "PERMISSIVE"),
        ("billing.sales", "{service_role}", "ALL", "PERMISSIVE"),
        ("public.generation_holds", "{authenticated}", "SELECT", "PERMISSIVE"),
        ("public.transactions", "{authenticated}", "SELECT", "PERMISSIVE"),
        ("public.users", "{authenticated}", "SELECT", "PERMISSIVE"),
    ]
