-- What the ledger knows of the money of each given payment or invoice that belongs to a known sale, in minor units: paid
-- (null where another id of the sale says it), its currency, refunded, disputed. Run by webhook audit --stripe.

select
    id,
    (
        select case bool_or(paid) when true then (max(array[version, money_amount]))[2] when false then 0 end
        from billing.sales
        where payment_id = id and money_amount is not null
    ),
    (
        select (max(array[version::text, currency]))[2]
        from billing.sales
        where payment_id = id and currency is not null
    ),
    (
        select coalesce(sum(money_amount), 0)::bigint
        from billing.reversals
        where payment_id = id and reversal_id !~ '^d[pu]_'
    ),
    (
        select coalesce(sum(money_amount), 0)::bigint
        from billing.reversals
        where payment_id = id and reversal_id ~ '^d[pu]_'
    )
from unnest(%s::text[]) as id
where exists (
    select from billing.sales
    where
        erased_at is null
        and payment_id = any (billing.linked_payments(array[id]))
)
