-- Returns the next open parked events of a bulk retry, oldest first, without their payloads. The parameters are those of
-- console_count_parked.

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
    and parked_at <= %(until)s
    and (%(reason)s::text is null or reason = %(reason)s)
    and (
        %(after_time)s::timestamptz is null
        or (parked_at, event_id) > (%(after_time)s::timestamptz, %(after_id)s::text)
    )
order by
    parked_at,
    event_id
limit %(page_size)s
