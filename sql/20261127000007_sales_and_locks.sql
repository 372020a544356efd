-- migrate:up

-- A sale as all its facts describe it, and the locks that serialise its settlement. Linked ids are one sale.
--
-- These functions run as their caller, service_role. pg_temp comes last in the search paths, so that no temporary type of
-- a pooled session stands in for a real one. They are in plpgsql, which keeps plans for the session: before Postgres 18,
-- each call of an SQL function plans its statements again.

create function billing.linked_payments(p_payment_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids text[] := array_remove(p_payment_ids, null);
    v_more text[];
begin
    loop
        -- Most sales have one id, and the first look-up finds no other.
        v_more := array(
            select payment_id
            from billing.payment_links
            where invoice_id = any (v_ids) and payment_id <> all (v_ids)
            union
            select invoice_id
            from billing.payment_links
            where payment_id = any (v_ids) and invoice_id <> all (v_ids)
        );
        if cardinality(v_more) = 0 then
            return v_ids;
        end if;
        v_ids := v_ids || v_more;
    end loop;
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
        where subscription_id = any (p_ids) or customer_id = any (p_ids)
    ));
end
$$;

comment on function billing.affected_payments(text[]) is
    'Returns the given ids (payments, subscriptions and Stripe customers), the sales of these subscriptions and customers that name no user, and all ids linked to any of them.';

revoke all on function billing.affected_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.affected_payments(text[]) to service_role;


create function billing.ids_to_lock(p_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_linked constant text[] := coalesce(billing.linked_payments(p_ids), '{}');
begin
    return v_linked
        || array(
            select unnest(array_remove(array[subscription_id, customer_id], null))
            from billing.sales
            where payment_id = any (v_linked)
        )
        || array(
            select customer_id
            from billing.claims
            where subject_id = any (p_ids) and customer_id is not null
        );
end
$$;

comment on function billing.ids_to_lock(text[]) is
    'Returns the given ids (payments, subscriptions and Stripe customers), all ids of their sales, the subscriptions and customers of these sales, and the customers of the subscriptions.';

revoke all on function billing.ids_to_lock(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.ids_to_lock(text[]) to service_role;


-- Two events of one sale may name different ids, so the whole linked set is locked. It is read under the lock: before it,
-- another transaction could still commit a link. Most sales have no other ids, so the given ones are tried first. If the
-- set is larger, the rollback of the inner block gives the locks back before all of it is locked: locks are only ever taken
-- in one order.
create function billing.lock_payments(p_payment_ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked text[];
    v_ids text[] := p_payment_ids;
begin
    loop
        v_locked := v_ids;
        begin
            perform pg_advisory_xact_lock(locks.key)
            from (
                select distinct hashtextextended(id, 4242) as key
                from unnest(v_locked) as id
                order by key
            ) as locks;
            v_ids := billing.ids_to_lock(p_payment_ids);
            if v_ids <@ v_locked then
                return;
            end if;
            raise exception using errcode = 'CR100';
        exception
            when sqlstate 'CR100' then
                null;
        end;
    end loop;
end
$$;

comment on function billing.lock_payments(text[]) is
    'Locks the given payments, subscriptions and Stripe customers and all that ids_to_lock() adds, until the transaction ends.';

revoke all on function billing.lock_payments(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.lock_payments(text[]) to service_role;


create type billing.merged_sale as (
    payment_id text,
    user_id uuid,
    credits bigint,
    money_amount bigint,
    currency text,
    paid boolean,
    erased boolean,
    forgotten boolean,
    claimants uuid[]
);

comment on type billing.merged_sale is
    'A sale as all its facts together describe it; money_amount is in minor units of currency. claimants is null if a fact names the user, else the users that the claims lead to; user_id is the only one.';

revoke all on type billing.merged_sale from public, anon, authenticated, service_role;

grant usage on type billing.merged_sale to service_role;


create function billing.sale_of(p_payment_ids text[]) returns billing.merged_sale
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_id uuid;
    v_credits bigint;
    v_fact record;
    v_payment_id text;
    v_payment billing.merged_sale;
    v_known_user_id uuid;
    v_version smallint;
    v_missing integer;
    v_sale billing.merged_sale;
    v_sale_version smallint;
    v_sale_missing integer;
    v_is_erased boolean := false;
    v_is_forgotten boolean := false;
    v_names_user boolean;
begin
    -- An operator's word counts before all other facts, and for all payments of the sale.
    for v_fact in
        select user_id, credits
        from billing.assignments
        where payment_id = any (p_payment_ids) and withdrawn_by is null
        order by number desc
    loop
        v_user_id := coalesce(v_user_id, v_fact.user_id);
        v_credits := coalesce(v_credits, v_fact.credits);
    end loop;
    v_names_user := v_user_id is not null;

    -- Most sales have one payment and one fact: for them, a loop starts faster than an aggregate.
    foreach v_payment_id in array p_payment_ids loop
        v_payment := null;
        v_known_user_id := null;
        v_version := null;
        for v_fact in
            select
                version, user_id, credits, money_amount, currency, paid, erased_at, forgotten_at,
                (select 1 from public.users where id = user_id) is not null as is_known
            from billing.sales
            where payment_id = v_payment_id
            union all
            -- A purchase entered by hand is a fact, too, and the weakest.
            select 0, user_id, amount, money_amount, currency, true, null, null, true
            from public.transactions
            where
                stripe_id = v_payment_id
                and type = 'PURCHASE'
                and event_id is null
                and num_nulls(money_amount, currency) = 0
            order by version desc
        loop
            v_version := coalesce(v_version, v_fact.version);
            v_known_user_id := coalesce(v_known_user_id, case when v_fact.is_known then v_fact.user_id end);
            v_payment.user_id := coalesce(v_payment.user_id, v_fact.user_id);
            v_payment.credits := coalesce(v_payment.credits, v_fact.credits);
            v_payment.money_amount := coalesce(v_payment.money_amount, v_fact.money_amount);
            v_payment.currency := coalesce(v_payment.currency, v_fact.currency);
            v_payment.paid := coalesce(v_payment.paid, false) or v_fact.paid;
            v_is_erased := v_is_erased or v_fact.erased_at is not null;
            v_is_forgotten := v_is_forgotten or v_fact.forgotten_at is not null;
        end loop;
        continue when v_version is null;

        v_names_user := v_names_user or v_payment.user_id is not null;
        v_payment.user_id := coalesce(v_user_id, v_known_user_id, v_payment.user_id);
        v_payment.credits := coalesce(v_credits, v_payment.credits);
        v_missing := case
            when coalesce(v_user_id, v_known_user_id) is null and v_payment.credits is null then 2
            else num_nulls(v_payment.user_id, v_payment.credits)
        end;
        if
            v_sale_version is null
            or (v_missing, not v_payment.paid, -v_version, v_payment_id collate "C")
            < (v_sale_missing, not v_sale.paid, -v_sale_version, v_sale.payment_id)
        then
            v_sale := v_payment;
            v_sale.payment_id := v_payment_id;
            v_sale_version := v_version;
            v_sale_missing := v_missing;
        end if;
    end loop;
    if v_sale_version is null then
        return null;
    end if;
    v_sale.erased := v_is_erased;
    v_sale.forgotten := v_is_forgotten;
    if not v_names_user then
        v_sale.claimants := billing.claimants(
            array(
                select subscription_id
                from billing.sales
                where payment_id = any (p_payment_ids) and subscription_id is not null
            ),
            array(
                select customer_id
                from billing.sales
                where payment_id = any (p_payment_ids) and customer_id is not null
            )
        );
        if cardinality(v_sale.claimants) = 1 then
            v_sale.user_id := v_sale.claimants[1];
        end if;
    end if;
    return v_sale;
end
$$;

comment on function billing.sale_of(text[]) is
    'Returns the sale of linked payments, null if nothing is known. Of several payments the one that names user and credits counts, then a paid one, then the highest version, then the smallest id. A user that does not exist counts only if no source names one that does. If none names a user, the claims decide. User and credits that an operator assigned count before all of them.';

revoke all on function billing.sale_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.sale_of(text[]) to service_role;


create function billing.unsettled_reason(p_sale billing.merged_sale) returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when cardinality(p_sale.claimants) > 1 then 'ambiguous_customer'
        when p_sale.user_id is null then 'missing_user'
        when p_sale.credits is null then 'missing_credits'
        when not exists (select from public.users where id = p_sale.user_id) then 'unknown_user'
    end;
end
$$;

comment on function billing.unsettled_reason(billing.merged_sale) is
    'Returns why a sale cannot be settled, null if it can: the first reason that applies, as in parked_events.reason.';

revoke all on function billing.unsettled_reason(billing.merged_sale) from public, anon, authenticated, service_role;

grant execute on function billing.unsettled_reason(billing.merged_sale) to service_role;


create function billing.ids_in(p_facts jsonb) returns text[]
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select id
        from jsonb_array_elements(p_facts) as fact
        cross join lateral unnest(array[
            fact ->> 'payment_id', fact ->> 'invoice_id', fact ->> 'subscription_id', fact ->> 'customer_id'
        ]) as id
        where id is not null
    );
end
$$;

comment on function billing.ids_in(jsonb) is
    'Returns the ids that recording the facts has to lock: payments, subscriptions and Stripe customers.';

revoke all on function billing.ids_in(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.ids_in(jsonb) to service_role;


-- Users who exist wait for nothing here. A claim whose user does not exist waits for the sign-ups in progress, and they
-- for it: otherwise neither would see the other, and the sales that the claim wins would not be settled. A few locks stand
-- for all users, so that an import of many accounts takes no more.
create function billing.lock_sign_ups(p_facts jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if not p_facts @? '$[*] ? (@.kind == "claim")' then
        return; -- This look is faster than the query.
    end if;
    perform pg_advisory_xact_lock(4242, sign_ups.key)
    from (
        select distinct billing.sign_up_key((fact ->> 'user_id')::uuid) as key
        from jsonb_array_elements(p_facts) as fact
        where
            fact ->> 'kind' = 'claim'
            and not exists (select from public.users where id = (fact ->> 'user_id')::uuid)
        order by key
    ) as sign_ups;
end
$$;

comment on function billing.lock_sign_ups(jsonb) is
    'Keeps the users of claims from signing up, until the transaction ends. To be called before all other locks.';

revoke all on function billing.lock_sign_ups(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lock_sign_ups(jsonb) to service_role;


create function billing.sign_up_key(p_user_id uuid) returns integer
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return get_byte(uuid_send(p_user_id), 15) % 64;
end
$$;

comment on function billing.sign_up_key(uuid) is
    'Returns the lock that serialises the sign-up of a user with claims of that user. Users share it.';

revoke all on function billing.sign_up_key(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.sign_up_key(uuid) to service_role;


-- Called after claims were merged, so that the users to whom they lead now are among them.
create function billing.lock_users(p_facts jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.linked_payments(billing.ids_in(p_facts) || array(
        select jsonb_path_query(p_facts, '$[*].settles[*]') #>> '{}'
    ));
begin
    perform 1
    from public.users
    where id in (
        select (fact ->> 'user_id')::uuid
        from jsonb_array_elements(p_facts) as fact
        union all
        select user_id
        from billing.sales
        where payment_id = any (v_payment_ids)
        union all
        select user_id
        from billing.assignments
        where payment_id = any (v_payment_ids)
        union all
        select user_id
        from billing.entries_of(v_payment_ids)
        union all
        -- Several users own nothing, so the users of a customer with many subscriptions are not held up.
        select named.claimants[1]
        from (
            select billing.claimants(
                array_remove(array[subscription_id], null), array_remove(array[customer_id], null)
            ) as claimants
            from (
                select subscription_id, customer_id
                from billing.sales
                where payment_id = any (v_payment_ids)
                union
                select fact ->> 'subscription_id', fact ->> 'customer_id'
                from jsonb_array_elements(p_facts) as fact
                where fact ->> 'kind' = 'sale'
            ) as subjects
            where num_nonnulls(subscription_id, customer_id) > 0
        ) as named
        where cardinality(named.claimants) = 1
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
