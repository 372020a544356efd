-- migrate:up

-- The one deliberate way to delete ledger rows: a person's right to be forgotten.

-- Run by the owner; the account in auth.users can be deleted afterwards. Leaves the payment ids as tombstones, so that
-- a later delivery about them is a duplicate that stores nothing.
create function billing.erase_user(p_user_id uuid) returns void
    language plpgsql
    set search_path = ''
as $$
declare
    v_payment_ids text[];
begin
    -- Not the payments that, as it turned out, were somebody else's.
    v_payment_ids := billing.linked_payments(array(
        select id
        from (
            select coalesce(payment_id, stripe_id)
            from public.transactions
            where user_id = p_user_id and stripe_id is not null
            union
            select payment_id
            from billing.sales
            where user_id = p_user_id
        ) as named (id)
        left join billing.sale_of(billing.linked_payments(array[id])) as sale on true
        where coalesce(sale.user_id, p_user_id) = p_user_id
    ));
    perform billing.lock_payments(v_payment_ids);
    perform 1
    from public.users
    where id = p_user_id
    for update;

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
        erased_at = now()
    where payment_id = any (v_payment_ids);
    update billing.sales
    set user_id = null
    where user_id = p_user_id;
    delete from billing.reversals
    where payment_id = any (v_payment_ids);
    delete from billing.parked_events
    where payment_id = any (v_payment_ids) or strpos(lower(payload::text), p_user_id::text) > 0;

    delete from public.users
    where id = p_user_id;
end
$$;

comment on function billing.erase_user(uuid) is
    'Erases a user''s ledger, facts, parked events and users row.';

revoke all on function billing.erase_user(uuid) from public, anon, authenticated, service_role;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000005';

-- migrate:down
