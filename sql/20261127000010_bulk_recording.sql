-- migrate:up

-- The short path of record() for the commonest delivery: a paid sale that names everything and of which nothing is known
-- yet, perhaps with a claim of its user. Such sales are written for the whole batch in one statement.
--
-- It is an optimisation: record_delivery() gives the same result, row by row.

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

comment on function billing.lock_named_users(jsonb) is
    'Locks the rows of the users that the facts name, in the order that every writer uses, and returns those that exist.';

revoke all on function billing.lock_named_users(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lock_named_users(jsonb) to service_role;


-- p_ids: the ids that all the deliveries name. Called under their locks. A delivery qualifies if
--   - its facts are one sale, alone or after a claim of its user that concerns no other sale,
--   - the sale is paid and names user and credits,
--   - no other delivery names its payment,
--   - nothing is stored about the payment, and no event of it is parked.
--
-- Each look-up is a subquery of its own: for a join the planner would read a whole index once a batch.
create function billing.new_payments(p_deliveries jsonb, p_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select sale.payment_id
        from jsonb_array_elements(p_deliveries) as delivery
        cross join lateral jsonb_to_record(delivery #> '{facts, 0}') as first (
            kind text, subscription_id text, customer_id text, user_id uuid
        )
        cross join lateral jsonb_to_record(delivery #> '{facts, -1}') as sale (
            payment_id text, user_id uuid, credits bigint, paid boolean
        )
        where
            case jsonb_array_length(delivery -> 'facts')
                when 1 then true
                when 2 then
                    first.kind = 'claim'
                    and first.user_id = sale.user_id
                    and first.customer_id is not null
                    and num_nonnulls(
                        (select 1 from billing.sales where customer_id = first.customer_id limit 1),
                        (select 1 from billing.sales where subscription_id = first.subscription_id limit 1),
                        (
                            select 1 from billing.claims
                            where subject_id = first.subscription_id and customer_id <> first.customer_id
                            limit 1
                        )
                    ) = 0
                else false
            end
            and sale.paid -- Only a sale has this field.
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

comment on function billing.new_payments(jsonb, text[]) is
    'Returns the payments whose deliveries are one complete paid sale each, of which nothing is known yet.';

revoke all on function billing.new_payments(jsonb, text[]) from public, anon, authenticated, service_role;

grant execute on function billing.new_payments(jsonb, text[]) to service_role;


-- The rows' ids begin with the time, as UUIDs of version 7 do (https://www.rfc-editor.org/rfc/rfc9562), so that new rows
-- stand side by side in the index. In a long ledger each random id would write a page of its own to the log.
create function billing.record_new_payments(p_deliveries jsonb, p_payment_ids text[], p_user_ids uuid[]) returns text[]
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_recorded text[];
begin
    with new_sales as materialized (
        select
            sale.*,
            delivery ->> 'event_id' as event_id,
            delivery #> '{facts, 0}' as first_fact
        from jsonb_array_elements(p_deliveries) as delivery
        cross join lateral jsonb_to_record(delivery #> '{facts, -1}') as sale (
            payment_id text, version smallint, user_id uuid, credits bigint, money_amount bigint, currency text,
            subscription_id text, customer_id text
        )
        where
            sale.payment_id = any (p_payment_ids)
            and sale.user_id = any (p_user_ids)
    ), claims as (
        insert into billing.claims as known (subject_id, user_id, level, customer_id, created)
        select
            coalesce(subscription_id, customer_id),
            user_id,
            level,
            max(customer_id) filter (where subscription_id is not null),
            max(to_timestamp(created))
        from (
            select claim.*
            from new_sales
            cross join lateral jsonb_to_record(first_fact) as claim (
                kind text, subscription_id text, customer_id text, user_id uuid, level smallint, created bigint
            )
            where kind = 'claim'
        ) as claims
        group by 1, 2, 3
        on conflict (subject_id, user_id, level) do update
            set
                customer_id = least(known.customer_id, excluded.customer_id),
                created = greatest(known.created, excluded.created)
            where
                (known.customer_id, known.created)
                is distinct from (least(known.customer_id, excluded.customer_id), greatest(known.created, excluded.created))
    ), facts as (
        insert into billing.sales (payment_id, version, user_id, credits, money_amount, currency, paid, subscription_id, customer_id)
        select payment_id, version, user_id, credits, money_amount, currency, true, subscription_id, customer_id
        from new_sales
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
        from new_sales
        returning payment_id
    )
    select array_agg(payment_id)
    into v_recorded
    from entries;
    return v_recorded;
end
$$;

comment on function billing.record_new_payments(jsonb, text[], uuid[]) is
    'Writes facts and ledger rows of the payments whose user is among p_user_ids, which exist and are locked. Returns the payments written.';

revoke all on function billing.record_new_payments(jsonb, text[], uuid[]) from public, anon, authenticated, service_role;

grant execute on function billing.record_new_payments(jsonb, text[], uuid[]) to service_role;

-- migrate:down
