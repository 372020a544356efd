-- Returns one parked event, and the actions on it as json. body is its payload, for what it reports about the sale: null once
-- that is dropped, and 30 days after the event was discarded.

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
    case when resolved_at is null or resolved_at > now() - interval '30 days' then payload::text end as body,
    (
        select coalesce(jsonb_agg(to_jsonb(actions) order by number), '[]')
        from billing.operator_actions as actions
        where subject = parked_events.event_id
    ) as actions,
    now() as read_at
from billing.parked_events
where event_id = %(event_id)s
