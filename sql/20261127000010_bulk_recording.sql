-- migrate:up

-- The short path of record() for the commonest delivery: a paid sale that names everything and of which nothing is known
-- yet, perhaps with a claim of its user. Such sales are written for the whole batch at once.
--
-- It is an optimisation: record_delivery() gives the same result, row by row.

-- p_ids: the ids that all the deliveries name. Called under their locks. A delivery qualifies if
--   - its facts are one sale, alone or after a claim of its user that concerns no other sale,
--   - the sale is paid and names user and credits, and so neither subscription nor customer,
--   - no earlier delivery names its payment; a later one finds the sale settled,
--   - nothing is stored about the payment, and no event of it is parked.
--
-- Each look-up is a subquery of its own: for a join the planner would read a whole index once a batch.
create function billing.new_sales(p_deliveries jsonb, p_ids text[]) returns billing.new_sale[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select row(
            position, delivery ->> 'event_id', sale.payment_id, sale.version, sale.user_id, sale.credits, sale.money_amount,
            sale.currency, case when claim.kind = 'claim' then delivery #> '{facts, 0}' end
        )::billing.new_sale
        from jsonb_array_elements(p_deliveries) with ordinality as each (delivery, position)
        cross join lateral jsonb_to_record(delivery #> '{facts, 0}') as claim (
            kind text, subscription_id text, customer_id text, user_id uuid
        )
        cross join lateral jsonb_to_record(delivery #> '{facts, -1}') as sale (
            payment_id text, version smallint, user_id uuid, credits bigint, money_amount bigint, currency text,
            paid boolean, subscription_id text, customer_id text
        )
        where
            case jsonb_array_length(delivery -> 'facts')
                when 1 then true
                when 2 then
                    claim.kind = 'claim'
                    and claim.user_id = sale.user_id
                    and claim.customer_id is not null
                    and num_nonnulls(
                        (select 1 from billing.sales where customer_id = claim.customer_id limit 1),
                        (select 1 from billing.sales where subscription_id = claim.subscription_id limit 1),
                        (
                            select 1 from billing.claims
                            where subject_id = claim.subscription_id and customer_id <> claim.customer_id
                            limit 1
                        )
                    ) = 0
                else false
            end
            and sale.paid -- Only a sale has this field.
            and num_nulls(sale.user_id, sale.credits) = 0
            and num_nonnulls(sale.subscription_id, sale.customer_id) = 0
            and (
                cardinality(array_positions(p_ids, sale.payment_id)) = 1
                or not exists (
                    select from jsonb_array_elements(p_deliveries) with ordinality as earlier (delivery, position)
                    where
                        earlier.position < each.position
                        and sale.payment_id = any (billing.ids_in(earlier.delivery -> 'facts'))
                )
            )
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

comment on function billing.new_sales(jsonb, text[]) is
    'Returns the sales of the deliveries that are one complete paid sale each, of which nothing is known yet.';

revoke all on function billing.new_sales(jsonb, text[]) from public, anon, authenticated, service_role;

grant execute on function billing.new_sales(jsonb, text[]) to service_role;


-- Users are locked in the order that every writer uses. A sale is left out if its user does not exist.
--
-- The rows' ids begin with the time, as UUIDs of version 7 do (https://www.rfc-editor.org/rfc/rfc9562), so that new rows
-- stand side by side in the index. In a long ledger each random id would write a page of its own to the log.
create function billing.record_new_sales(p_sales billing.new_sale[]) returns integer[]
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_ids constant uuid[] := array(
        select id
        from public.users
        where id = any (array(select user_id from unnest(p_sales)))
        order by id
        for no key update
    );
begin
    if exists (select from unnest(p_sales) as sale where sale.claim is not null) then
        insert into billing.claims as known (subject_id, user_id, level, customer_id, created)
        select
            coalesce(claim ->> 'subscription_id', claim ->> 'customer_id'),
            user_id,
            (claim ->> 'level')::smallint,
            min(claim ->> 'customer_id') filter (where claim ->> 'subscription_id' is not null),
            max(to_timestamp((claim ->> 'created')::bigint))
        from unnest(p_sales)
        where claim is not null and user_id = any (v_user_ids)
        group by 1, 2, 3
        on conflict (subject_id, user_id, level) do update
            set
                customer_id = least(known.customer_id, excluded.customer_id),
                created = greatest(known.created, excluded.created)
            where
                (known.customer_id, known.created)
                is distinct from (least(known.customer_id, excluded.customer_id), greatest(known.created, excluded.created));
    end if;
    insert into billing.sales (payment_id, version, user_id, credits, money_amount, currency, paid)
    select payment_id, version, user_id, credits, money_amount, currency, true
    from unnest(p_sales)
    where user_id = any (v_user_ids);
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
    from unnest(p_sales)
    where user_id = any (v_user_ids);
    return array(select position from unnest(p_sales) where user_id = any (v_user_ids));
end
$$;

comment on function billing.record_new_sales(billing.new_sale[]) is
    'Locks the users of the sales, and writes facts and ledger rows of those whose user exists. Returns their positions.';

revoke all on function billing.record_new_sales(billing.new_sale[]) from public, anon, authenticated, service_role;

grant execute on function billing.record_new_sales(billing.new_sale[]) to service_role;

-- migrate:down
