-- Returns the credits of each day (UTC) from since until before until, and when the last delivery of Stripe wrote a ledger row.
-- Days without rows are left out. spent is less what failed generations gave back. taken_back is less what failed refunds and
-- won disputes gave back; it includes assignments, whose rows cancel each other out. adjusted are adjustments by operators.

select
    (created_at at time zone 'UTC')::date as day,
    coalesce(sum(amount) filter (where type = 'PURCHASE'), 0)::bigint as sold,
    coalesce(-sum(amount) filter (where type = 'GENERATION' or refunds is not null), 0)::bigint as spent,
    coalesce(-sum(amount) filter (where type = 'REFUND' and payment_id is not null), 0)::bigint as taken_back,
    coalesce(
        sum(amount) filter (where type = 'REFUND' and num_nonnulls(payment_id, refunds) = 0), 0
    )::bigint as adjusted,
    max(created_at) filter (where event_id like 'evt\_%%') as last_delivery_at
from public.transactions
where created_at >= %(since)s and created_at < %(until)s
group by day
order by day
