-- migrate:up

-- Erasing a user: the one deliberate way to delete ledger rows, for a person's right to be forgotten.

create function billing.names_user(p_payload json, p_user_id uuid) returns boolean
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return strpos(lower(p_payload::text), p_user_id::text) > 0;

comment on function billing.names_user(json, uuid) is
    'Returns whether the body of an event contains the id of a user.';

revoke all on function billing.names_user(json, uuid) from public, anon, authenticated, service_role;

grant execute on function billing.names_user(json, uuid) to service_role;


create function billing.payments_of_user(p_user_id uuid) returns text[]
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select billing.linked_payments(array(
        select id
        from (
            select coalesce(payment_id, stripe_id)
            from public.transactions
            where user_id = p_user_id and stripe_id is not null
            union
            select payment_id
            from billing.sales
            where user_id = p_user_id
            union
            select payment_id
            from billing.parked_events
            where payment_id is not null and billing.names_user(payload, p_user_id)
        ) as named (id)
        left join billing.sale_of(billing.linked_payments(array[id])) as sale on true
        where coalesce(sale.user_id, p_user_id) = p_user_id
    ))
$$;

comment on function billing.payments_of_user(uuid) is
    'Returns all ids of the payments of a user, apart from payments that turned out to be another user''s.';

revoke all on function billing.payments_of_user(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.payments_of_user(uuid) to service_role;


create function billing.erase_user(p_user_id uuid) returns void
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
    -- Read again under the locks: a sale of this user may have been recorded while they were awaited.
    v_payment_ids := billing.payments_of_user(p_user_id);

    -- This locks out every other writer of the ledger until the transaction ends, so no other delete can slip through.
    alter table public.transactions disable trigger transactions_append_only;
    delete from public.transactions
    where user_id = p_user_id;
    alter table public.transactions enable trigger transactions_append_only;
    delete from public.generation_holds
    where user_id = p_user_id;

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

comment on function billing.erase_user(uuid) is
    'Erases the ledger rows, holds, facts, parked events and users row of a user. Run by the owner; the row in auth.users can be deleted afterwards. Leaves the payment ids and a hash of the user''s id as tombstones, so that later deliveries about them store nothing.';

revoke all on function billing.erase_user(uuid) from public, anon, authenticated, service_role;

-- migrate:down
