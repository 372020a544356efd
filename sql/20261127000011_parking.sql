-- migrate:up

-- Parking and discarding events. An event is resolved by billing.resolve(), or when its sale is settled.

create function billing.park(
    p_event_id text,
    p_event_type text,
    p_reason text,
    p_payment_id text,
    p_payload text,
    p_user_reference text default null
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- The facts of such an event were not read, so no other event can stand for it.
    v_is_unread constant boolean := p_reason in ('wrong_mode', 'missing_api_key');
    v_sale billing.merged_sale;
begin
    if p_payment_id is not null then
        perform billing.lock_payments(array[p_payment_id]);
        v_sale := billing.sale_of(billing.linked_payments(array[p_payment_id]));
        if
            v_sale.erased
            or (not v_is_unread and v_sale.paid and billing.unsettled_reason(v_sale) is null)
        then
            perform billing.resolve(p_event_id);
            return false;
        end if;
    elsif
        p_user_reference ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        and billing.is_erased_user(p_user_reference::uuid)
    then
        return false; -- No money: the redelivery must not bring the erased user's data back.
    end if;
    insert into billing.parked_events as known (event_id, event_type, reason, payment_id, payload, user_reference)
    values (p_event_id, p_event_type, p_reason, p_payment_id, p_payload::json, p_user_reference)
    on conflict (event_id) do update
        set
            -- A worker or a retry with a wrong setting knows less than the one that parked the event.
            reason = case
                when excluded.reason = 'wrong_mode' then known.reason
                when
                    excluded.reason in ('missing_api_key', 'missing_object')
                    and known.reason not in ('wrong_mode', 'unreadable', 'missing_api_key', 'missing_object')
                    then known.reason
                else excluded.reason
            end,
            payment_id = coalesce(excluded.payment_id, known.payment_id),
            user_reference = coalesce(excluded.user_reference, known.user_reference)
        where known.resolved_at is null;
    return found;
end
$$;

comment on function billing.park(text, text, text, text, text, text) is
    'Stores an event that cannot be settled now, with its body. Returns whether it is open: not if it was resolved before, nor if its sale is erased, or paid and settled by other events. If it is open already, a reason that only a wrong setting causes does not replace the known one.';

revoke all on function billing.park(text, text, text, text, text, text) from public, anon, authenticated, service_role;

grant execute on function billing.park(text, text, text, text, text, text) to service_role;


create function billing.discard(p_event_ids text[], p_by text, p_reason text) returns setof text
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.parked_events
    set
        resolution = 'discarded',
        resolved_at = now(),
        discarded_by = p_by || ' as ' || session_user,
        discard_reason = p_reason,
        -- As text: the operators of json reject a body that contains \u0000 or half a surrogate pair.
        object_ids = case
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

comment on function billing.discard(text[], text, text) is
    'Discards open parked events and drops their payloads. Returns which of the events are discarded now, earlier ones included. An event that is delivered again and can be settled is still settled.';

revoke all on function billing.discard(text[], text, text) from public, anon, authenticated, service_role;

grant execute on function billing.discard(text[], text, text) to service_role;


create function billing.reopen(p_event_id text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    update billing.parked_events
    set
        resolution = null,
        resolved_at = null,
        discarded_by = null,
        discard_reason = null,
        object_ids = null
    where event_id = p_event_id and resolution = 'discarded' and payload is not null;
    return found;
end
$$;

comment on function billing.reopen(text) is
    'Puts a discarded event back on the list, so that it can be retried. Returns whether its payload was still kept.';

revoke all on function billing.reopen(text) from public, anon, authenticated, service_role;

grant execute on function billing.reopen(text) to service_role;


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
                    -- As text: the operators of json reject a body that contains \u0000 or half a surrogate pair.
                    else strpos(replace(payload::text, '": "', '":"'), '"id":' || to_json(p_object_id)::text) > 0
                end
        ) then 'waiting'
        when exists (
            select from billing.parked_events
            where
                resolution = 'discarded'
                and (event_id = p_object_id or payment_id = any (v_payment_ids) or p_object_id = any (object_ids))
        ) then 'discarded'
        when v_sale.erased or (v_sale.paid and billing.unsettled_reason(v_sale) is null) then 'settled'
    end;
end
$$;

comment on function billing.parked_already(text, text) is
    'Returns why reconciliation does not park an object: waiting or discarded, under an event of the object or its sale; settled if its sale is settled or erased. Null if it is to be parked.';

revoke all on function billing.parked_already(text, text) from public, anon, authenticated, service_role;

grant execute on function billing.parked_already(text, text) to service_role;

-- migrate:down
