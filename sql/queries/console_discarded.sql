-- Returns a page of the discarded events whose payload is kept, the latest first, without their payloads: those before a time
-- and id (null for the first page). Such an event can be put back on the list.

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
where
    payload is not null
    and resolved_at is not null
    and (
        %(after_time)s::timestamptz is null
        or (resolved_at, event_id) < (%(after_time)s::timestamptz, %(after_id)s::text)
    )
order by
    resolved_at desc,
    event_id desc
limit %(page_size)s
