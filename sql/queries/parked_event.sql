-- Returns one parked event, open or resolved, with its payload. That of a discarded event is shown for 30 days.

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
where event_id = %(event_id)s
