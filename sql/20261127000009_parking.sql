-- migrate:up

-- Parking events.

-- Stores an event that cannot be settled now; p_payload is its body. Returns whether it waits: not if it was resolved
-- before, nor if its sale was erased or is paid and settled by what others told.
create function billing.park(
    p_event_id text,
    p_event_type text,
    p_reason text,
    p_payment_id text,
    p_payload text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_sale billing.merged_sale;
begin
    if p_payment_id is not null then
        perform billing.lock_payments(array[p_payment_id]);
        v_sale := billing.sale_of(billing.linked_payments(array[p_payment_id]));
        if
            v_sale.erased
            or (p_reason <> 'missing_api_key' and v_sale.paid and billing.unsettled_reason(v_sale) is null)
        then
            perform billing.resolve(p_event_id);
            return false;
        end if;
    end if;
    insert into billing.parked_events as known (event_id, event_type, reason, payment_id, payload)
    values (p_event_id, p_event_type, p_reason, p_payment_id, p_payload::json)
    on conflict (event_id) do update
        set
            reason = excluded.reason,
            payment_id = excluded.payment_id
        where known.resolved_at is null;
    return found;
end
$$;

revoke all on function billing.park(text, text, text, text, text) from public, anon, authenticated, service_role;

grant execute on function billing.park(text, text, text, text, text) to service_role;


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


-- Why an object that cannot be settled is not to be parked: it is 'waiting' already, or was 'discarded', under an event
-- about it or its sale; or its sale is 'settled' by what others told, or erased. Null where it is to be.
create function billing.parked_already(p_object_id text, p_payment_id text) returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.linked_payments(array[p_payment_id]);
    v_sale constant billing.merged_sale := billing.sale_of(v_payment_ids);
begin
    return case
        when exists (
            select from billing.parked_events
            where
                resolved_at is null
                and case
                    when event_id = p_object_id then true
                    when payment_id is not null then payment_id = any (v_payment_ids)
                    -- As text: the operators of json refuse a body with \u0000 or half a surrogate pair in it.
                    else strpos(replace(payload::text, '": "', '":"'), '"id":' || to_json(p_object_id)::text) > 0
                end
        ) then 'waiting'
        when exists (
            select from billing.parked_events
            where
                resolution = 'discarded'
                and (event_id = p_object_id or payment_id = any (v_payment_ids) or p_object_id = any (about))
        ) then 'discarded'
        when v_sale.erased or (v_sale.paid and billing.unsettled_reason(v_sale) is null) then 'settled'
    end;
end
$$;

revoke all on function billing.parked_already(text, text) from public, anon, authenticated, service_role;

grant execute on function billing.parked_already(text, text) to service_role;

-- migrate:down
