-- migrate:up

-- What told who the Stripe customer of an erased user was is stored no more than their payments are when it is delivered
-- again: it was parked, with its payload, for the user is unknown.

set local lock_timeout = '3s';


create table billing.erased_users (
    user_hash bytea not null
        constraint erased_users_pkey primary key,
    erased_at timestamptz not null default now()
);

comment on table billing.erased_users is
    'Tombstones of billing.erase_user(): the SHA-256 of each id, from which nobody finds it. A payment that is made afterwards is parked, for it is somebody''s money.';

revoke all on billing.erased_users from public, anon, authenticated, service_role;

grant select on billing.erased_users to service_role;

alter table billing.erased_users enable row level security;


-- Why a delivery with these facts is refused as a whole: one of them names a user that does not exist. Null where none
-- does; a sale that is erased asks for no user, nor does who the Stripe customer of an erased one was.
create or replace function billing.refusal_of(p_facts jsonb) returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
        when fact ->> 'kind' = 'sale' and coalesce(fact ->> 'credits', sale.credits::text) is null then 'missing_credits'
        else 'unknown_user'
    end
    from jsonb_array_elements(p_facts) as fact
    left join billing.sale_of(billing.linked_payments(billing.ids_in(p_facts))) as sale on true
    where
        fact ->> 'user_id' is not null
        and not exists (select from public.users where id = (fact ->> 'user_id')::uuid)
        and not coalesce(sale.erased, false)
        and not (
            fact ->> 'kind' = 'customer'
            and exists (
                select from billing.erased_users
                where user_hash = sha256((fact ->> 'user_id')::uuid::text::bytea)
            )
        )
    limit 1
$$;


-- Run by the owner; the account in auth.users can be deleted afterwards. Leaves the payment ids, and a
-- hash of the user's, as tombstones, so that a later delivery about them is a duplicate that stores nothing.
create or replace function billing.erase_user(p_user_id uuid) returns void
    language plpgsql
    set search_path = ''
as $$
declare
    v_payment_ids text[];
begin
    perform billing.lock_payments(billing.payments_of_user(p_user_id));
    perform 1
    from public.users
    where id = p_user_id
    for update;
    -- Only now can no sale of this user be recorded any more; one may have been while the locks were awaited.
    v_payment_ids := billing.payments_of_user(p_user_id);

    -- Locks out every other writer of the ledger until this transaction ends: nobody else's delete slips through.
    alter table public.transactions disable trigger transactions_append_only;
    delete from public.transactions
    where user_id = p_user_id;
    alter table public.transactions enable trigger transactions_append_only;

    insert into billing.sales (payment_id, version, paid, erased_at)
    select
        id,
        1,
        true,
        now()
    from unnest(v_payment_ids) as id
    on conflict (payment_id, version) do nothing;
    update billing.sales
    set
        user_id = null,
        credits = null,
        money_amount = null,
        currency = null,
        customer_id = null,
        erased_at = now()
    where payment_id = any (v_payment_ids);
    update billing.sales
    set user_id = null
    where user_id = p_user_id;
    delete from billing.customers
    where user_id = p_user_id;
    delete from billing.reversals
    where payment_id = any (v_payment_ids);
    delete from billing.parked_events
    where payment_id = any (v_payment_ids) or billing.names_user(payload, p_user_id);

    delete from public.users
    where id = p_user_id;
    if found then
        insert into billing.erased_users (user_hash)
        values (pg_catalog.sha256(p_user_id::pg_catalog.text::pg_catalog.bytea))
        on conflict (user_hash) do nothing;
    end if;
end
$$;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261125000003';

-- migrate:down
