-- migrate:up

-- Recording deliveries.

-- The ids that a fact names and that its recording has to lock: payments, and a Stripe customer.
create function billing.ids_of(p_fact jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array_remove(array[p_fact ->> 'payment_id', p_fact ->> 'invoice_id', p_fact ->> 'customer_id'], null);

revoke all on function billing.ids_of(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.ids_of(jsonb) to service_role;


-- The ids that several facts name.
create function billing.ids_in(p_facts jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array(
        select unnest(billing.ids_of(fact))
        from jsonb_array_elements(p_facts) as fact
    );

revoke all on function billing.ids_in(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.ids_in(jsonb) to service_role;


-- Locks the rows of all users whose balance the facts could change, in the order that everybody uses.
create function billing.lock_users(p_facts jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.concerned_payments(billing.ids_in(p_facts));
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

revoke all on function billing.lock_users(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lock_users(jsonb) to service_role;


-- Where a sale names no user and its Stripe customer is one, writes that down as the lowest version of the sale: it
-- stays, whoever the customer turns out to be later. Returns how many users the customer is.
create function billing.find_user(p_payment_ids text[]) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_ids constant uuid[] := array(
        select distinct user_id
        from billing.customers
        where customer_id in (
            select customer_id
            from billing.sales
            where payment_id = any (p_payment_ids)
        )
    );
begin
    if cardinality(v_user_ids) = 1 then
        insert into billing.sales (payment_id, version, user_id, paid)
        select
            payment_id,
            0,
            v_user_ids[1],
            false
        from billing.sales
        where payment_id = any (p_payment_ids) and customer_id is not null
        on conflict (payment_id, version) do nothing;
    end if;
    return cardinality(v_user_ids);
end
$$;

revoke all on function billing.find_user(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.find_user(text[]) to service_role;


-- Settles what linked payments are, if that is possible. p_fact has just been merged. Returns why it is not, else null,
-- and whether that took a new row. Once the sale is paid, no event of it waits any more.
create function billing.settle_sale(
    p_payment_ids text[],
    p_fact jsonb,
    p_event_id text,
    out reason text,
    out is_new boolean
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_sale billing.merged_sale := billing.sale_of(p_payment_ids);
begin
    is_new := false;
    reason := billing.unsettled_reason(v_sale);
    if reason = 'missing_user' then
        case billing.find_user(p_payment_ids)
            when 0 then
                return;
            when 1 then
                v_sale := billing.sale_of(p_payment_ids);
                reason := billing.unsettled_reason(v_sale);
            else
                reason := 'ambiguous_customer';
        end case;
    end if;
    if reason is not null then
        return;
    end if;
    is_new := billing.settle(p_payment_ids, v_sale, p_fact, p_event_id);
    if not v_sale.paid then
        return; -- An event that waits may be the only one to say that it is.
    end if;
    update billing.parked_events
    set
        resolution = 'settled',
        resolved_at = now(),
        payload = null
    where
        payment_id = any (p_payment_ids)
        and parked_events.reason <> 'missing_api_key'
        and resolved_at is null;
end
$$;

revoke all on function billing.settle_sale(text[], jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.settle_sale(text[], jsonb, text) to service_role;


-- Merges who a Stripe customer is, and settles the sales that waited for it. Returns whether it is news; of a user who was
-- erased it is not.
create function billing.learn_customer(p_fact jsonb, p_event_id text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_id text;
begin
    insert into billing.customers (customer_id, user_id)
    select
        p_fact ->> 'customer_id',
        id
    from public.users
    where id = (p_fact ->> 'user_id')::uuid
    on conflict do nothing;
    if not found then
        return false;
    end if;
    for v_payment_id in
        select payment_id
        from billing.sales
        where customer_id = p_fact ->> 'customer_id'
        order by payment_id collate "C"
    loop
        perform billing.settle_sale(
            billing.linked_payments(array[v_payment_id]),
            jsonb_build_object('kind', 'sale', 'payment_id', v_payment_id, 'version', 0),
            p_event_id
        );
    end loop;
    return true;
end
$$;

revoke all on function billing.learn_customer(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.learn_customer(jsonb, text) to service_role;


-- Whether the refunds that are known of a sale fall short of what its charge says is refunded. A dispute is no refund.
create function billing.lacks_refunds(p_payment_ids text[], p_fact jsonb) returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    return exists (select from billing.sales where payment_id = any (p_payment_ids))
        and (p_fact ->> 'money_amount')::numeric > (
            select coalesce(sum(money_amount), 0)
            from billing.reversals
            where payment_id = any (p_payment_ids) and reversal_id !~ '^d[pu]_'
        );

revoke all on function billing.lacks_refunds(text[], jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lacks_refunds(text[], jsonb) to service_role;


-- Merges one fact and settles its sale. Returns 'recorded' where something is new, 'duplicate' where nothing is,
-- 'ignored' where it says nothing, else why the sale that the fact is about cannot be settled. Nothing is stored for an
-- erased sale.
create function billing.record_fact(p_fact jsonb, p_event_id text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.linked_payments(billing.ids_of(p_fact));
    v_before constant billing.merged_sale := billing.sale_of(v_payment_ids);
    v_is_sale constant boolean := p_fact ->> 'kind' = 'sale';
    v_is_new boolean;
    v_settled record;
begin
    if v_before.erased then
        if p_fact ->> 'kind' = 'link' then
            perform billing.merge_link(p_fact); -- so that the other id is known to be erased, too
        end if;
        return 'duplicate';
    end if;
    case p_fact ->> 'kind'
        when 'sale' then
            perform billing.merge_sale(p_fact);
        when 'reversal' then
            v_is_new := billing.merge_reversal(p_fact, p_event_id);
        when 'link' then
            v_is_new := billing.merge_link(p_fact);
        when 'customer' then
            v_is_new := billing.learn_customer(p_fact, p_event_id);
            return case when v_is_new then 'recorded' else 'duplicate' end;
        when 'refunded_total' then
            return case when billing.lacks_refunds(v_payment_ids, p_fact) then 'missing_api_key' else 'ignored' end;
    end case;

    v_settled := billing.settle_sale(v_payment_ids, p_fact, p_event_id);
    if
        v_is_sale
        and v_settled.reason is not null
        and (v_settled.reason = 'unknown_user' or num_nonnulls(p_fact ->> 'user_id', p_fact ->> 'credits') > 0)
    then
        -- A payment that names neither user nor credits is none of ours, until its session says so.
        return v_settled.reason;
    end if;
    if v_is_sale then
        v_is_new := v_before is distinct from billing.sale_of(v_payment_ids);
    end if;
    return case when v_is_new or v_settled.is_new then 'recorded' else 'duplicate' end;
end
$$;

revoke all on function billing.record_fact(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.record_fact(jsonb, text) to service_role;


-- Why a delivery with these facts is refused as a whole: one of them names a user that does not exist. Null where none
-- does; a sale that is erased asks for no user, nor does who the Stripe customer of an erased one was.
create function billing.refusal_of(p_facts jsonb) returns text
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

revoke all on function billing.refusal_of(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.refusal_of(jsonb) to service_role;


-- Records one delivery's facts, or none where one of them names an unknown user. See record().
create function billing.record_delivery(p_facts jsonb, p_event_id text) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason text := billing.refusal_of(p_facts);
    v_fact jsonb;
    v_outcome text;
    v_result text := 'duplicate';
begin
    if v_reason is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_reason);
    end if;
    for v_fact in
        select *
        from jsonb_array_elements(p_facts)
    loop
        v_outcome := billing.record_fact(v_fact, p_event_id);
        case v_outcome
            when 'duplicate' then
                null;
            when 'recorded', 'ignored' then
                v_result := v_outcome;
            else
                v_reason := coalesce(v_reason, v_outcome);
        end case;
    end loop;

    if v_reason is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_reason);
    end if;
    perform billing.resolve(p_event_id);
    if v_result = 'ignored' then
        return jsonb_build_object('outcome', v_result, 'reason', 'refunds_known');
    end if;
    return jsonb_build_object('outcome', v_result);
end
$$;

revoke all on function billing.record_delivery(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.record_delivery(jsonb, text) to service_role;


-- As before, with the fresh payments first: what the others say has nothing to do with them.
--
-- A delivery needs a few rows of tables that may be long, so all below goes by index, row by row. The planner would not know
-- that: a session keeps the plans that it made while the tables were short.
create function billing.record(p_deliveries jsonb) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as $$
declare
    v_facts constant jsonb := jsonb_path_query_array(p_deliveries, '$[*].facts[*]');
    v_ids constant text[] := billing.ids_in(v_facts);
    v_fresh text[];
    v_user_ids uuid[];
    v_delivery jsonb;
    v_results jsonb := '[]';
begin
    perform billing.lock_payments(v_ids);
    v_fresh := billing.fresh_payments(p_deliveries, v_ids);
    if cardinality(v_fresh) < jsonb_array_length(p_deliveries) then
        perform billing.lock_users(v_facts);
    end if;
    if cardinality(v_fresh) > 0 then
        v_user_ids := billing.lock_named_users(v_facts); -- no more than lock_users() has locked
        v_fresh := billing.record_fresh(p_deliveries, v_fresh, v_user_ids);
    end if;
    for v_delivery in
        select *
        from jsonb_array_elements(p_deliveries)
    loop
        v_results := v_results || case
            when v_delivery #>> '{facts, -1, payment_id}' = any (v_fresh) then '{"outcome": "recorded"}'::jsonb
            else billing.record_delivery(v_delivery -> 'facts', v_delivery ->> 'event_id')
        end;
    end loop;
    return v_results;
end
$$;

revoke all on function billing.record(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.record(jsonb) to service_role;

-- migrate:down
