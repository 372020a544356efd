-- migrate:up

-- A sale as all its facts describe it, and the locks that serialise its settlement. Linked ids are one sale.
--
-- These functions run as their caller, service_role. pg_temp comes last in the search paths, so that no temporary type of
-- a pooled session stands in for a real one. Functions of the hot path are in plpgsql, whose plans are kept.

create function billing.linked_payments(p_payment_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Most sales have one id and need no search.
    if not exists (
        select from billing.payment_links
        where invoice_id = any (p_payment_ids) or payment_id = any (p_payment_ids)
    ) then
        return array_remove(p_payment_ids, null);
    end if;
    return (
        with recursive linked (id) as (
            select unnest(p_payment_ids)
            union
            select neighbours.id
            from linked
            cross join lateral (
                select payment_id as id
                from billing.payment_links
                where invoice_id = linked.id
                union all
                select invoice_id
                from billing.payment_links
                where payment_id = linked.id
            ) as neighbours
        )
        select array_agg(id)
        from linked
    );
end
$$;

comment on function billing.linked_payments(text[]) is
    'Returns the given ids and all ids that are one sale with any of them.';

revoke all on function billing.linked_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.linked_payments(text[]) to service_role;


create function billing.affected_payments(p_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return billing.linked_payments(p_ids || array(
        select payment_id
        from billing.sales
        where customer_id = any (p_ids)
    ));
end
$$;

comment on function billing.affected_payments(text[]) is
    'Returns the given ids (payments and Stripe customers), the sales of these customers, and all ids linked to any of them.';

revoke all on function billing.affected_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.affected_payments(text[]) to service_role;


-- Two events of one sale may name different ids, so the whole linked set is locked, and the links are read again under the
-- lock. If the set has grown, the rollback of the inner block gives the locks back before the larger set is taken: locks
-- are only ever taken in one order.
create function billing.lock_payments(p_payment_ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked text[];
begin
    loop
        v_locked := coalesce(billing.affected_payments(p_payment_ids), '{}');
        begin
            perform pg_advisory_xact_lock(locks.key)
            from (
                select distinct hashtextextended(id, 4242) as key
                from unnest(v_locked) as id
                order by key
            ) as locks;
            if coalesce(billing.affected_payments(p_payment_ids) <@ v_locked, true) then
                return;
            end if;
            raise exception using errcode = 'CR100';
        exception
            when sqlstate 'CR100' then
                null; -- Another transaction committed a link meanwhile.
        end;
    end loop;
end
$$;

comment on function billing.lock_payments(text[]) is
    'Locks every id of the sales that the given payments and Stripe customers belong to, until the transaction ends.';

revoke all on function billing.lock_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.lock_payments(text[]) to service_role;


create type billing.merged_sale as (
    payment_id text,
    user_id uuid,
    credits bigint,
    money_amount bigint,
    currency text,
    paid boolean,
    erased boolean
);

comment on type billing.merged_sale is
    'A sale as all its facts together describe it; money_amount is in minor units of currency.';

revoke all on type billing.merged_sale from public, anon, authenticated, service_role;

grant usage on type billing.merged_sale to service_role;


create function billing.sale_of(p_payment_ids text[]) returns billing.merged_sale
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select
        merged.payment_id,
        merged.user_id,
        merged.credits,
        merged.money_amount,
        merged.currency,
        merged.paid,
        bool_or(merged.erased) over ()
    from (
        select
            payment_id,
            max(version) as version,
            (array_agg(user_id order by is_known desc, version desc) filter (where user_id is not null))[1] as user_id,
            (array_agg(credits order by version desc) filter (where credits is not null))[1] as credits,
            (array_agg(money_amount order by version desc) filter (where money_amount is not null))[1] as money_amount,
            (array_agg(currency order by version desc) filter (where currency is not null))[1] as currency,
            bool_or(paid) as paid,
            bool_or(erased_at is not null) as erased,
            bool_or(is_known) as is_known
        from (
            select
                payment_id,
                version,
                user_id,
                credits,
                money_amount,
                currency,
                paid,
                erased_at,
                exists (select from public.users where id = user_id) as is_known
            from billing.sales
            where payment_id = any (p_payment_ids)
            union all
            -- A purchase entered by hand is a fact, too, and the weakest.
            select stripe_id, 0, user_id, amount, money_amount, currency, true, null, true
            from public.transactions
            where stripe_id = any (p_payment_ids) and type = 'PURCHASE' and num_nulls(money_amount, currency) = 0
        ) as facts
        group by payment_id
    ) as merged
    order by
        case when merged.is_known or merged.credits is not null then num_nulls(merged.user_id, merged.credits) else 2 end,
        merged.paid desc,
        merged.version desc,
        merged.payment_id collate "C"
    limit 1
$$;

comment on function billing.sale_of(text[]) is
    'Returns the sale of linked payments, null if nothing is known. Of several payments the one that names user and credits counts, then a paid one, then the highest version, then the smallest id. A user that does not exist counts only if no source names one that does.';

revoke all on function billing.sale_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.sale_of(text[]) to service_role;


create function billing.unsettled_reason(p_sale billing.merged_sale) returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    return case
        when p_sale.user_id is null then 'missing_user'
        when p_sale.credits is null then 'missing_credits'
        when not exists (select from public.users where id = p_sale.user_id) then 'unknown_user'
    end;

comment on function billing.unsettled_reason(billing.merged_sale) is
    'Returns why a sale cannot be settled, null if it can: the first reason that applies, as in parked_events.reason.';

revoke all on function billing.unsettled_reason(billing.merged_sale) from public, anon, authenticated, service_role;

grant execute on function billing.unsettled_reason(billing.merged_sale) to service_role;


create function billing.ids_of(p_fact jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array_remove(array[p_fact ->> 'payment_id', p_fact ->> 'invoice_id', p_fact ->> 'customer_id'], null);

comment on function billing.ids_of(jsonb) is
    'Returns the ids that recording a fact has to lock: payments, and a Stripe customer.';

revoke all on function billing.ids_of(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.ids_of(jsonb) to service_role;


create function billing.ids_in(p_facts jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array(
        select unnest(billing.ids_of(fact))
        from jsonb_array_elements(p_facts) as fact
    );

comment on function billing.ids_in(jsonb) is
    'Returns the ids that recording several facts has to lock.';

revoke all on function billing.ids_in(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.ids_in(jsonb) to service_role;


create function billing.lock_users(p_facts jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.affected_payments(billing.ids_in(p_facts));
begin
    perform 1
    from public.users
    where id in (
        select (fact ->> 'user_id')::uuid
        from jsonb_array_elements(p_facts) as fact
        union all
        select user_id
        from billing.customers
        where customer_id = any (v_payment_ids)
        union all
        select user_id
        from billing.sales
        where payment_id = any (v_payment_ids)
        union all
        select user_id
        from billing.entries_of(v_payment_ids)
    )
    order by id
    for no key update;
end
$$;

comment on function billing.lock_users(jsonb) is
    'Locks the rows of all users whose balance the facts could change, in the order that every writer uses.';

revoke all on function billing.lock_users(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lock_users(jsonb) to service_role;

-- migrate:down
