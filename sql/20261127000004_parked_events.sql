-- migrate:up

-- The events that wait for an operator.

create table billing.parked_events (
    event_id text not null
        constraint parked_events_pkey primary key,
    event_type text not null,
    reason text not null
        constraint parked_events_reason_known check (
            reason in (
                'wrong_mode', 'unreadable', 'missing_api_key', 'missing_user', 'ambiguous_customer',
                'missing_credits', 'invalid_credits', 'unknown_user'
            )
        ),
    payment_id text,
    -- json, not jsonb: it keeps every body as it came, \u0000 too.
    payload json,
    parked_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolution text,
    who text,
    why text,
    about text[],
    constraint parked_events_payload_while_open check ((payload is null) = (resolved_at is not null)),
    constraint parked_events_resolution_whole check (
        case resolution
            when 'settled' then resolved_at is not null and num_nonnulls(who, why) = 0
            when 'discarded' then resolved_at is not null and num_nulls(who, why) = 0
            else num_nonnulls(resolution, resolved_at, who, why) = 0
        end
    )
);

comment on table billing.parked_events is
    'Verified events about credits that could not be settled.';

comment on column billing.parked_events.payment_id is
    'The sale it is about, where it says: another event of the sale can bring what this one lacks.';

comment on column billing.parked_events.payload is
    'The event as it came. It holds personal data, so it is dropped once the event is resolved.';

comment on column billing.parked_events.resolution is
    'How its waiting ended: settled or discarded. A discarded event that is delivered again and can be settled by then is.';

comment on column billing.parked_events.who is
    'Who discarded it, as they said, and the database login that they did it with.';

comment on column billing.parked_events.about is
    'Of a discarded event that names no payment, the ids in its payload: what it was about is not parked again.';

create index parked_events_open_idx on billing.parked_events (payment_id)
where resolved_at is null;

revoke all on billing.parked_events from public, anon, authenticated, service_role;

grant select, insert, update on billing.parked_events to service_role;

alter table billing.parked_events enable row level security;


-- Ends the waiting of a parked event, if it waits, and drops its payload.
create function billing.resolve(p_event_id text) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.parked_events
    set
        resolution = 'settled',
        resolved_at = now(),
        payload = null
    where event_id = p_event_id and resolved_at is null
$$;

revoke all on function billing.resolve(text) from public, anon, authenticated, service_role;

grant execute on function billing.resolve(text) to service_role;

-- migrate:down
