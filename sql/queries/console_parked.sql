-- Returns a page of the open parked events, oldest first, without their payloads: those after a time and id (null for the first
-- page), parked until a time unless that is null, and with a reason unless that is null.

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
    resolved_at is null
    and (%(until)s::timestamptz is null or parked_at <= %(until)s)
    and (%(reason)s::text is null or reason = %(reason)s)
    and (
        %(after_time)s::timestamptz is null
        or (parked_at, event_id) > (%(after_time)s::timestamptz, %(after_id)s::text)
    )
order by
    parked_at,
    event_id
limit %(page_size)s
