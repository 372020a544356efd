-- migrate:up

-- A sale as all its facts tell it, and the locks that serialise its settlement.

-- The ids that are one sale with any of the given ones, those included.
create function billing.linked_payments(p_payment_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Most sales have one id: they are spared the search.
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

revoke all on function billing.linked_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.linked_payments(text[]) to service_role;


-- As before; in plpgsql, whose plans are kept.
create function billing.concerned_payments(p_ids text[]) returns text[]
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

revoke all on function billing.concerned_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.concerned_payments(text[]) to service_role;


-- Locks every id of the sales that the given ids belong to, and Stripe customers among them, until the transaction ends.
--
-- Two events of one sale may name different ids, so the whole linked set is locked, and the links are read again
-- under the lock. Had they grown, the locks are given back (the block's rollback does it) before the larger set is
-- taken: locks are only ever taken in one order.
create function billing.lock_payments(p_payment_ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked text[];
begin
    loop
        v_locked := coalesce(billing.concerned_payments(p_payment_ids), '{}');
        begin
            perform pg_advisory_xact_lock(locks.key)
            from (
                select distinct hashtextextended(id, 4242) as key
                from unnest(v_locked) as id
                order by key
            ) as locks;
            if coalesce(billing.concerned_payments(p_payment_ids) <@ v_locked, true) then
                return;
            end if;
            raise exception using errcode = 'CR100';
        exception
            when sqlstate 'CR100' then
                null; -- A link was committed meanwhile: once more, with it.
        end;
    end loop;
end
$$;

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

revoke all on type billing.merged_sale from public, anon, authenticated, service_role;

grant usage on type billing.merged_sale to service_role;


-- The sale that linked payments are: the payment that names both a user and credits, then one that is paid, then the
-- highest version, then the smallest id counts, and of it each column from the highest version that names it. Null where
-- nothing is known.
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
            (array_agg(user_id order by version desc) filter (where user_id is not null))[1] as user_id,
            (array_agg(credits order by version desc) filter (where credits is not null))[1] as credits,
            (array_agg(money_amount order by version desc) filter (where money_amount is not null))[1] as money_amount,
            (array_agg(currency order by version desc) filter (where currency is not null))[1] as currency,
            bool_or(paid) as paid,
            bool_or(erased_at is not null) as erased
        from (
            select payment_id, version, user_id, credits, money_amount, currency, paid, erased_at
            from billing.sales
            where payment_id = any (p_payment_ids)
            union all
            -- A purchase that somebody entered by hand is a fact, too, and the weakest.
            select stripe_id, 0, user_id, amount, money_amount, currency, true, null
            from public.transactions
            where stripe_id = any (p_payment_ids) and type = 'PURCHASE' and num_nulls(money_amount, currency) = 0
        ) as facts
        group by payment_id
    ) as merged
    order by
        num_nulls(merged.user_id, merged.credits),
        merged.paid desc,
        merged.version desc,
        merged.payment_id collate "C"
    limit 1
$$;

revoke all on function billing.sale_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.sale_of(text[]) to service_role;


-- Why a sale cannot be settled, null where it can: the first reason that applies, as billing.parked_events names them.
create function billing.unsettled_reason(p_sale billing.merged_sale) returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    return case
        when p_sale.user_id is null then 'missing_user'
        when p_sale.credits is null then 'missing_credits'
        when not exists (select from public.users where id = p_sale.user_id) then 'unknown_user'
    end;

revoke all on function billing.unsettled_reason(billing.merged_sale) from public, anon, authenticated, service_role;

grant execute on function billing.unsettled_reason(billing.merged_sale) to service_role;

-- migrate:down
