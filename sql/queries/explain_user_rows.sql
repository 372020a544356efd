-- Returns a page of a user's ledger rows, the newest first, from before a row: its time and id, both null for the first
-- page.

select
    id::text as id,
    user_id::text as user_id,
    amount,
    type::text as type,
    stripe_id,
    payment_id,
    money_amount,
    currency,
    refunds::text as refunds,
    event_id,
    description,
    created_at
from public.transactions
where
    user_id = %(user_id)s
    and (
        %(before_time)s::timestamptz is null
        or (created_at, id) < (%(before_time)s::timestamptz, %(before_id)s::uuid)
    )
order by
    created_at desc,
    id desc
limit %(page_size)s
