-- Returns the purchases that equal a given one and are at most a day away from it, the oldest first.

select
    payment_id,
    created_at
from public.transactions as purchases
where
    user_id = %(user_id)s
    and created_at between %(at)s::timestamptz - interval '1 day' and %(at)s::timestamptz + interval '1 day'
    and type = 'PURCHASE'
    and amount = %(amount)s
    and money_amount = %(money_amount)s
    and money_amount > 0
    and currency = %(currency)s
    and payment_id <> all (%(payment_ids)s::text[])
    and not exists (select from billing.reversals where reversals.payment_id = purchases.payment_id and money_amount > 0)
order by
    created_at,
    payment_id
limit 10
