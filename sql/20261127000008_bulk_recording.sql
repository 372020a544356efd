-- migrate:up

-- Recording many new sales at once.

-- Locks the rows of the users that the facts name, in the order that everybody uses, and returns those that exist: all that
-- fresh payments can change.
create function billing.lock_named_users(p_facts jsonb) returns uuid[]
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_named constant uuid[] := array(
        select (fact ->> 'user_id')::uuid
        from jsonb_array_elements(p_facts) as fact
    );
begin
    return array(
        select id
        from public.users
        where id = any (v_named)
        order by id
        for no key update
    );
end
$$;

revoke all on function billing.lock_named_users(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lock_named_users(jsonb) to service_role;


-- The payments among p_ids, the ids that all the deliveries name, that are fresh: their delivery is one paid sale that
-- names everything, after who its customer is, if that settles no other sale; no other delivery names them, and nothing
-- is stored about them. Of facts only a sale says paid. To be asked under their locks. Each look is a subquery of its own:
-- as a join, the planner would read a whole index once a batch.
create function billing.fresh_payments(p_deliveries jsonb, p_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select sale.payment_id
        from jsonb_array_elements(p_deliveries) as delivery
        cross join lateral jsonb_to_record(delivery #> '{facts, 0}') as first (
            kind text, customer_id text, user_id uuid
        )
        cross join lateral jsonb_to_record(delivery #> '{facts, -1}') as sale (
            payment_id text, user_id uuid, credits bigint, paid boolean
        )
        where
            case jsonb_array_length(delivery -> 'facts')
                when 1 then true
                when 2 then
                    first.kind = 'customer'
                    and first.user_id = sale.user_id
                    and (select 1 from billing.sales where customer_id = first.customer_id limit 1) is null
                else false
            end
            and sale.paid
            and num_nulls(sale.user_id, sale.credits) = 0
            and cardinality(array_positions(p_ids, sale.payment_id)) = 1
            and num_nonnulls(
                (select 1 from billing.sales where payment_id = sale.payment_id limit 1),
                (select 1 from billing.payment_links where invoice_id = sale.payment_id limit 1),
                (select 1 from billing.payment_links where payment_id = sale.payment_id limit 1),
                (select 1 from billing.reversals where payment_id = sale.payment_id limit 1),
                (select 1 from public.transactions where payment_id = sale.payment_id limit 1),
                (select 1 from public.transactions where stripe_id = sale.payment_id),
                (
                    select 1 from billing.parked_events
                    where payment_id = sale.payment_id and resolved_at is null
                    limit 1
                ),
                (
                    select 1 from billing.parked_events
                    where event_id = delivery ->> 'event_id' and resolved_at is null
                )
            ) = 0
    );
end
$$;

revoke all on function billing.fresh_payments(jsonb, text[]) from public, anon, authenticated, service_role;

grant execute on function billing.fresh_payments(jsonb, text[]) to service_role;


-- Records the sales of fresh payments, those apart whose user is not among p_user_ids, which exist and are locked. Returns
-- the payments. What settle_sale() would do with each, for all at once.
--
-- The rows' ids begin with the time, as UUIDs of version 7 do (https://www.rfc-editor.org/rfc/rfc9562), so that they stand
-- side by side in the index: in a long ledger random ones would each write a page of their own to the log.
create function billing.record_fresh(p_deliveries jsonb, p_payment_ids text[], p_user_ids uuid[]) returns text[]
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_recorded text[];
begin
    with fresh as materialized (
        select
            sale.*,
            delivery ->> 'event_id' as event_id,
            case delivery #>> '{facts, 0, kind}'
                when 'customer' then delivery #>> '{facts, 0, customer_id}'
            end as learned_id
        from jsonb_array_elements(p_deliveries) as delivery
        cross join lateral jsonb_to_record(delivery #> '{facts, -1}') as sale (
            payment_id text, version smallint, user_id uuid, credits bigint, money_amount bigint, currency text,
            customer_id text
        )
        where
            sale.payment_id = any (p_payment_ids)
            and sale.user_id = any (p_user_ids)
    ), customers as (
        insert into billing.customers (customer_id, user_id)
        select distinct
            learned_id,
            user_id
        from fresh
        where learned_id is not null
        on conflict do nothing
    ), facts as (
        insert into billing.sales (payment_id, version, user_id, credits, money_amount, currency, paid, customer_id)
        select payment_id, version, user_id, credits, money_amount, currency, true, customer_id
        from fresh
    ), entries as (
        insert into public.transactions
            (id, user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
        select
            encode(
                set_bit(
                    set_bit(
                        overlay(
                            uuid_send(gen_random_uuid())
                            placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                            from 1 for 6
                        ),
                        52,
                        1
                    ),
                    53,
                    1
                ),
                'hex'
            )::uuid,
            user_id,
            credits,
            'PURCHASE',
            payment_id,
            payment_id,
            money_amount,
            currency,
            event_id
        from fresh
        returning payment_id
    )
    select array_agg(payment_id)
    into v_recorded
    from entries;
    return v_recorded;
end
$$;

revoke all on function billing.record_fresh(jsonb, text[], uuid[]) from public, anon, authenticated, service_role;

grant execute on function billing.record_fresh(jsonb, text[], uuid[]) to service_role;

-- migrate:down
