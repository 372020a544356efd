-- Returns one parked event, open or resolved, with its payload.

select
    event_id as id,
    event_type as type,
    reason,
    payment_id,
    parked_at,
    resolution,
    resolved_at,
    discarded_by,
    discard_reason,
    payload::text
from billing.parked_events
where event_id = %(event_id)s
