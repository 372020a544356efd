-- migrate:up

-- How a parked event's waiting ended: it was settled, or an operator discarded it, and then who did and why.

-- New deliveries queue behind whoever waits for a table: rather fail, and be run again.
set local lock_timeout = '3s';

alter table billing.parked_events
add column resolution text,
add column who text,
add column why text,
add column about text[];

update billing.parked_events
set resolution = 'settled'
where resolved_at is not null;

-- The table is small, so that checking its rows takes no time.
alter table billing.parked_events
-- squawk-ignore constraint-missing-not-valid
add constraint parked_events_resolution_whole check (
    case resolution
        when 'settled' then resolved_at is not null and num_nonnulls(who, why) = 0
        when 'discarded' then resolved_at is not null and num_nulls(who, why) = 0
        else num_nonnulls(resolution, resolved_at, who, why) = 0
    end
);

comment on column billing.parked_events.resolution is
    'How its waiting ended: settled or discarded. A discarded event that is delivered again and can be settled by then is.';

comment on column billing.parked_events.who is
    'Who discarded it, as they said, and the database login that they did it with.';

comment on column billing.parked_events.about is
    'Of a discarded event that names no payment, the ids in its payload: what it was about is not parked again.';


-- Ends the waiting of parked events that are not to be settled, and drops their payloads. Returns which of them are
-- discarded now: to ask again is no error. It forbids nothing: what another event, or the same one delivered again, can
-- settle is settled.
create function billing.discard(p_event_ids text[], p_by text, p_why text) returns setof text
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.parked_events
    set
        resolution = 'discarded',
        resolved_at = now(),
        who = p_by || ' as ' || session_user,
        why = p_why,
        -- As text: the operators of json refuse a body with \u0000 or half a surrogate pair in it.
        about = case
            when payment_id is null then array(
                select distinct found[1]
                from regexp_matches(payload::text, '"id":\s*"([!#-~]{1,255})"', 'g') as found
            )
        end,
        payload = null
    where event_id = any (p_event_ids) and resolved_at is null;

    select event_id
    from billing.parked_events
    where event_id = any (p_event_ids) and resolution = 'discarded'
    order by event_id;
$$;

revoke all on function billing.discard(text[], text, text) from public, anon, authenticated, service_role;

grant execute on function billing.discard(text[], text, text) to service_role;


-- Ends the waiting of a parked event, if it waits, and drops its payload.
create or replace function billing.resolve(p_event_id text) returns void
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


-- Settles what linked payments are, if that is possible. p_fact has just been merged. Returns why it is not, else null,
-- and whether that took a new row. Once the sale is paid, no event of it waits any more.
create or replace function billing.settle_sale(
    p_payment_ids text[],
    p_fact jsonb,
    p_event_id text,
    out reason text,
    out is_new boolean
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_sale billing.merged_sale := billing.sale_of(p_payment_ids);
begin
    is_new := false;
    reason := billing.unsettled_reason(v_sale);
    if reason = 'missing_user' then
        case billing.find_user(p_payment_ids)
            when 0 then
                return;
            when 1 then
                v_sale := billing.sale_of(p_payment_ids);
                reason := billing.unsettled_reason(v_sale);
            else
                reason := 'ambiguous_customer';
        end case;
    end if;
    if reason is not null then
        return;
    end if;
    is_new := billing.settle(p_payment_ids, v_sale, p_fact, p_event_id);
    if not v_sale.paid then
        return; -- An event that waits may be the only one to say that it is.
    end if;
    update billing.parked_events
    set
        resolution = 'settled',
        resolved_at = now(),
        payload = null
    where
        payment_id = any (p_payment_ids)
        and parked_events.reason <> 'missing_api_key'
        and resolved_at is null;
end
$$;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000006';

-- migrate:down
