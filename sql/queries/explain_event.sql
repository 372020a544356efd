-- Returns one parked event without its payload, and the actions on it as json.

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
    (
        select coalesce(jsonb_agg(to_jsonb(actions) order by number), '[]')
        from billing.operator_actions as actions
        where subject = parked_events.event_id
    ) as actions,
    now() as read_at
from billing.parked_events
where event_id = %(event_id)s
