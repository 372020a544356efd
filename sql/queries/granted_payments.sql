-- Returns the sales that Stripe events or reconciliation granted in a period.

select stripe_id as payment_id
from public.transactions
where
    type = 'PURCHASE'
    and event_id is not null
    and created_at >= %(since)s
    and created_at < %(until)s
