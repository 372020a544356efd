-- Returns the money of each given payment or invoice whose sale is known, in minor units.
-- paid is null if another id of the sale holds it.

select
    id as payment_id,
    (
        select case bool_or(paid) when true then (max(array[version, money_amount]))[2] when false then 0 end
        from billing.sales
        where payment_id = id and money_amount is not null
    ) as paid,
    (
        select (max(array[version::text, currency]))[2]
        from billing.sales
        where payment_id = id and currency is not null
    ) as currency,
    (
        select coalesce(sum(money_amount), 0)::bigint
        from billing.reversals
        where payment_id = id and reversal_id !~ '^d[pu]_'
    ) as refunded,
    (
        select coalesce(sum(money_amount), 0)::bigint
        from billing.reversals
        where payment_id = id and reversal_id ~ '^d[pu]_'
    ) as disputed,
    (
        select credits
        from billing.sales
        where payment_id = id and version = 2 and paid
    ) as invoice_credits
from unnest(%(payment_ids)s::text[]) as id
where exists (
    select from billing.sales
    where
        erased_at is null
        and payment_id = any (billing.linked_payments(array[id]))
)
