-- Returns the ledger rows of a sale, oldest first.

select
    stripe_id,
    amount,
    user_id::text,
    event_id,
    created_at
from billing.entries_of(billing.linked_payments(array[%(payment_id)s]))
order by
    created_at,
    stripe_id
