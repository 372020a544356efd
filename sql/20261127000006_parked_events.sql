-- migrate:up

-- Parked events: verified events about credits that cannot be settled yet. They wait for an operator or for another
-- event of their sale.

-- As text: the operators of json reject a body that contains \u0000 or half a surrogate pair.
create function billing.ids_named_in(p_payload json) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array(
        select distinct found[1]
        from regexp_matches(p_payload::text, '"((?:cs|pi|in|re|pyr|dp|du|ch|py|cus|sub|inpay)_[A-Za-z0-9_]{1,250})"', 'g')
            as found
    );

comment on function billing.ids_named_in(json) is
    'Returns the ids of payments, sessions, invoices, refunds, disputes, charges, customers and subscriptions in an event.';

revoke all on function billing.ids_named_in(json) from public, anon, authenticated, service_role;

grant execute on function billing.ids_named_in(json) to service_role;


create table billing.parked_events (
    event_id text not null
        constraint parked_events_pkey primary key,
    event_type text not null,
    reason text not null
        constraint parked_events_reason_known check (
            reason in (
                'wrong_mode', 'unreadable', 'missing_api_key', 'missing_object', 'missing_user',
                'ambiguous_customer', 'missing_credits', 'invalid_credits', 'unknown_user'
            )
        ),
    payment_id text,
    user_reference text,
    payer_email text,
    -- json, not jsonb: it keeps every body as it came, also one with \u0000.
    payload json,
    parked_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolution text,
    discarded_by text,
    discard_reason text,
    object_ids text[],
    constraint parked_events_payload_while_needed check (
        case
            when resolved_at is null then payload is not null
            when resolution = 'settled' then payload is null
        end is not false
    ),
    constraint parked_events_payer_email_while_open check (resolved_at is null or payer_email is null),
    constraint parked_events_resolution_whole check (
        case resolution
            when 'settled' then resolved_at is not null and num_nonnulls(discarded_by, discard_reason) = 0
            when 'discarded' then resolved_at is not null and num_nulls(discarded_by, discard_reason) = 0
            else num_nonnulls(resolution, resolved_at, discarded_by, discard_reason) = 0
        end
    )
);

comment on table billing.parked_events is
    'Verified events about credits that could not be settled.';

comment on column billing.parked_events.reason is
    'The first reason that applies.';

comment on column billing.parked_events.payment_id is
    'The sale, if the event names it. Another event of the sale can bring what this one lacks.';

comment on column billing.parked_events.user_reference is
    'What the event names as its user, a UUID or not. It may be personal data, so it is dropped with the payload.';

comment on column billing.parked_events.payer_email is
    'The e-mail address of the person who paid, if the event names it. Search it in lower case. It is dropped when the event is resolved.';

comment on column billing.parked_events.payload is
    'The event as it came. It holds personal data, so it is dropped when the event is settled, and 30 days after it was discarded.';

comment on column billing.parked_events.resolution is
    'settled or discarded; null while the event is open. A discarded event becomes settled if it is delivered again and can be settled.';

comment on column billing.parked_events.discarded_by is
    'The operator''s name as given, and the database login.';

comment on column billing.parked_events.discard_reason is
    'Why the operator discarded it.';

comment on column billing.parked_events.object_ids is
    'The ids in the payload of a discarded event without payment_id. Reconciliation does not park these objects again.';

create index parked_events_open_idx on billing.parked_events (payment_id)
where resolved_at is null;

create index parked_events_oldest_idx on billing.parked_events (parked_at, event_id)
where resolved_at is null;

create index parked_events_reason_idx on billing.parked_events (reason, parked_at, event_id)
where resolved_at is null;

create index parked_events_payer_idx on billing.parked_events (lower(payer_email))
where resolved_at is null;

create index parked_events_kept_idx on billing.parked_events (resolved_at)
where payload is not null and resolved_at is not null;

create index parked_events_resolved_idx on billing.parked_events (payment_id)
where resolved_at is not null;

create index parked_events_named_ids_idx on billing.parked_events using gin (billing.ids_named_in(payload))
where payload is not null;

-- A hash: a reference may be longer than a B-tree's entries.
create index parked_events_user_reference_idx on billing.parked_events using hash (lower(user_reference))
where user_reference is not null;

revoke all on billing.parked_events from public, anon, authenticated, service_role;

grant select, insert, update on billing.parked_events to service_role;

alter table billing.parked_events enable row level security;

create policy parked_events_service_role on billing.parked_events
    for all
    to service_role
    using (true)
    with check (true);


create function billing.drop_personal_data() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if new.payload is null then
        new.user_reference := null;
    end if;
    if new.resolved_at is not null then
        new.payer_email := null;
    end if;
    return new;
end
$$;

comment on function billing.drop_personal_data() is
    'Drops the user reference of a parked event together with its payload, and the payer''s e-mail when the event is resolved.';

revoke all on function billing.drop_personal_data() from public, anon, authenticated, service_role;

create trigger parked_events_drop_personal_data
    before insert or update on billing.parked_events
    for each row
    when (
        (new.payload is null and new.user_reference is not null)
        or (new.resolved_at is not null and new.payer_email is not null)
    )
    execute function billing.drop_personal_data();


create function billing.resolve(p_event_id text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    update billing.parked_events
    set
        resolution = 'settled',
        resolved_at = now(),
        payload = null
    where event_id = p_event_id and resolved_at is null;
end
$$;

comment on function billing.resolve(text) is
    'Marks an event as settled and drops its payload, if it is parked and open.';

revoke all on function billing.resolve(text) from public, anon, authenticated, service_role;

grant execute on function billing.resolve(text) to service_role;

-- migrate:down
