-- Returns the exact number of open parked events of a bulk retry, and the time that ends it: events that were parked until then,
-- after a time and id, with a reason unless that is null. The count ends at most. A null until is now.

select
    count(*) as events,
    coalesce(%(until)s::timestamptz, now()) as until
from (
    select
    from billing.parked_events
    where
        resolved_at is null
        and parked_at <= coalesce(%(until)s::timestamptz, now())
        and (%(reason)s::text is null or reason = %(reason)s)
        and (
            %(after_time)s::timestamptz is null
            or (parked_at, event_id) > (%(after_time)s::timestamptz, %(after_id)s::text)
        )
    order by
        parked_at,
        event_id
    limit %(most)s
) as events_to_retry
