-- Returns the open parked events, oldest first, without their payloads.

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
    discard_reason
from billing.parked_events
where resolved_at is null
order by
    parked_at,
    event_id
