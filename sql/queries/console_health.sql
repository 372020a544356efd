-- Returns the oldest open parked event, the number of open ones by reason (each count ends at %(most)s), and the latest finished
-- reconciliation. Values are null where there is none.

select
    oldest.event_id as oldest_event_id,
    oldest.parked_at as oldest_parked_at,
    (
        select coalesce(jsonb_object_agg(reasons.reason, events), '{}')
        from unnest(%(reasons)s::text[]) as reasons (reason)
        cross join lateral (
            select count(*) as events
            from (
                select
                from billing.parked_events
                where parked_events.reason = reasons.reason and resolved_at is null
                -- With the order of its index: for a rare reason, any other plan reads the whole table.
                order by
                    parked_at,
                    event_id
                limit %(most)s
            ) as open_events
        ) as counted
        where events > 0
    ) as parked,
    reconciled.finished_at as reconciled_at,
    reconciled.covered_until,
    now() as read_at
from (values (1)) as one (row)
left join lateral (
    select
        event_id,
        parked_at
    from billing.parked_events
    where resolved_at is null
    order by
        parked_at,
        event_id
    limit 1
) as oldest on true
left join lateral (
    select
        finished_at,
        covered_until
    from billing.reconciliations
    where finished_at is not null
    order by id desc
    limit 1
) as reconciled on true
