-- migrate:up

-- What a sale is of, where its credits were read from prices, is what was first told: an operator can change a price long
-- after, and an event that is delivered again reads it anew. That changes what is sold from then on, and no earlier sale.

set local lock_timeout = '3s';


-- Merges what one source says about a sale. Where the same source speaks twice, what grants most counts; of credits read
-- from prices ("priced": true) what it said first, which is looked up under the sale's lock.
create or replace function billing.merge_sale(p_fact jsonb) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    insert into billing.sales as known (payment_id, version, user_id, credits, money_amount, currency, paid, customer_id)
    values (
        p_fact ->> 'payment_id',
        (p_fact ->> 'version')::smallint,
        (p_fact ->> 'user_id')::uuid,
        coalesce(
            case
                when (p_fact ->> 'priced')::boolean then (
                    select credits
                    from billing.sales
                    where payment_id = p_fact ->> 'payment_id' and version = (p_fact ->> 'version')::smallint
                )
            end,
            (p_fact ->> 'credits')::bigint
        ),
        (p_fact ->> 'money_amount')::bigint,
        p_fact ->> 'currency',
        (p_fact ->> 'paid')::boolean,
        p_fact ->> 'customer_id'
    )
    on conflict (payment_id, version) do update
        set
            user_id = least(known.user_id, excluded.user_id),
            credits = greatest(known.credits, excluded.credits),
            money_amount = greatest(known.money_amount, excluded.money_amount),
            currency = least(known.currency, excluded.currency),
            paid = known.paid or excluded.paid,
            customer_id = least(known.customer_id, excluded.customer_id)
        where
            (known.user_id, known.credits, known.money_amount, known.currency, known.paid, known.customer_id)
            is distinct from (
                least(known.user_id, excluded.user_id),
                greatest(known.credits, excluded.credits),
                greatest(known.money_amount, excluded.money_amount),
                least(known.currency, excluded.currency),
                known.paid or excluded.paid,
                least(known.customer_id, excluded.customer_id)
            )
$$;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261125000001';

-- migrate:down
