-- Returns parked events by their id, by an id of their payment or of an object in their payload, by their user, or by
-- their payer's e-mail.

select
    event_id as id,
    event_type as type,
    reason,
    payment_id,
    user_reference,
    payer_email,
    parked_at,
    resolution,
    resolved_at,
    discarded_by,
    discard_reason,
    case when resolved_at is null or resolved_at > now() - interval '30 days' then payload::text end as payload
from billing.parked_events
where
    event_id = %(key)s
    or payment_id = any (billing.linked_payments(array[%(key)s]))
    or lower(user_reference) = lower(%(key)s)
    or lower(payer_email) = lower(%(key)s)
    or payload::text ~ %(pattern)s::text
    or payment_id in (select payment_id from public.transactions where user_id = %(user_id)s::uuid)
    or payment_id in (select payment_id from billing.sales where user_id = %(user_id)s::uuid)
order by
    parked_at,
    event_id
