-- migrate:up

-- Parking events. An event is resolved by billing.resolve(), when its sale is settled, or when an operator discards it.

-- Of rows that another session drops at this moment none is waited for.
create function billing.drop_discarded_payloads() returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.parked_events
    set payload = null
    where event_id in (
        select event_id
        from billing.parked_events
        where payload is not null and resolved_at < now() - interval '30 days'
        limit 1000
        for no key update skip locked
    )
$$;

comment on function billing.drop_discarded_payloads() is
    'Drops the payloads of events that were discarded more than 30 days ago. park() and discard() call it.';

revoke all on function billing.drop_discarded_payloads() from public, anon, authenticated, service_role;

grant execute on function billing.drop_discarded_payloads() to service_role;


create function billing.lacks_nothing(p_sale billing.merged_sale) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return p_sale.paid
        and case billing.unsettled_reason(p_sale)
            when 'unknown_user' then p_sale.forgotten
            else billing.unsettled_reason(p_sale) is null
        end;
end
$$;

comment on function billing.lacks_nothing(billing.merged_sale) is
    'Returns whether a sale needs no further event: it is paid, and settled or its user was erased.';

revoke all on function billing.lacks_nothing(billing.merged_sale) from public, anon, authenticated, service_role;

grant execute on function billing.lacks_nothing(billing.merged_sale) to service_role;


create function billing.park(
    p_event_id text,
    p_event_type text,
    p_reason text,
    p_payment_id text,
    p_payload text,
    p_user_reference text default null,
    p_payer_email text default null
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- The facts of such an event were not read, so no other event can stand for it.
    v_is_unread constant boolean := p_reason in ('wrong_mode', 'missing_api_key');
    v_payment_ids text[];
    v_sale billing.merged_sale;
    v_is_open boolean;
begin
    if p_payment_id is not null then
        perform billing.lock_payments(array[p_payment_id]);
        v_payment_ids := billing.linked_payments(array[p_payment_id]);
        v_sale := billing.sale_of(v_payment_ids);
        if
            v_sale.erased
            or (not v_is_unread and billing.lacks_nothing(v_sale))
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
    perform billing.drop_discarded_payloads();
    insert into billing.parked_events as known
        (event_id, event_type, reason, payment_id, payload, user_reference, payer_email)
    values (p_event_id, p_event_type, p_reason, p_payment_id, p_payload::json, p_user_reference, p_payer_email)
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
            user_reference = coalesce(excluded.user_reference, known.user_reference),
            payer_email = coalesce(excluded.payer_email, known.payer_email)
        where known.resolved_at is null;
    v_is_open := found;
    if v_is_open then
        -- The event stands for its sale again, see park_sale().
        perform billing.resolve(event_id)
        from billing.parked_events
        where
            payment_id = any (v_payment_ids)
            and event_type = 'billing.sale'
            and resolved_at is null
            and event_id <> p_event_id;
    end if;
    return v_is_open;
end
$$;

comment on function billing.park(text, text, text, text, text, text, text) is
    'Stores an event that cannot be settled now, with its body. Returns whether it is open: not if it was resolved before, nor if its sale is erased, or paid and settled by other events. If it is open already, a reason that only a wrong setting causes does not replace the known one.';

revoke all on function billing.park(text, text, text, text, text, text, text) from public, anon, authenticated, service_role;

grant execute on function billing.park(text, text, text, text, text, text, text) to service_role;


-- The event that brought the sale was settled and its payload dropped, so the row stands for the sale itself. Its id is the
-- payment's, as for objects that reconciliation parks. A discarded one stays discarded.
create function billing.park_sale(p_payment_ids text[], p_reason text, p_is_lost boolean) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_id constant text := coalesce((billing.sale_of(p_payment_ids)).payment_id, p_payment_ids[1]);
begin
    if exists (select from billing.parked_events where payment_id = any (p_payment_ids) and resolved_at is null) then
        update billing.parked_events
        set reason = p_reason
        where
            payment_id = any (p_payment_ids)
            and resolved_at is null
            and (reason in ('missing_user', 'ambiguous_customer') or event_type = 'billing.sale');
        return;
    elsif not p_is_lost then
        return;
    end if;
    insert into billing.parked_events as known (event_id, event_type, reason, payment_id, payload)
    values (
        v_payment_id,
        'billing.sale',
        p_reason,
        v_payment_id,
        json_build_object('id', v_payment_id, 'object', 'event', 'type', 'billing.sale')
    )
    on conflict (event_id) do update
        set
            event_type = excluded.event_type,
            reason = excluded.reason,
            payment_id = excluded.payment_id,
            payload = excluded.payload,
            parked_at = now(),
            resolved_at = null,
            resolution = null
        where known.resolution = 'settled';
end
$$;

comment on function billing.park_sale(text[], text, boolean) is
    'Corrects the reason of the parked events of a sale that wait for a user. If none is parked and p_is_lost, lists the sale among them: it had a user, and has none any more.';

revoke all on function billing.park_sale(text[], text, boolean) from public, anon, authenticated, service_role;

grant execute on function billing.park_sale(text[], text, boolean) to service_role;


create function billing.settle_parked_sale(p_payment_id text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids text[];
begin
    perform billing.lock_payments(array[p_payment_id]);
    v_payment_ids := billing.linked_payments(array[p_payment_id]);
    perform billing.lock_users(jsonb_build_array(jsonb_build_object('settles', v_payment_ids)));
    perform billing.settle_again(v_payment_ids, null);
    return billing.unsettled_reason(billing.sale_of(v_payment_ids));
end
$$;

comment on function billing.settle_parked_sale(text) is
    'Settles a sale that park_sale() has listed. Returns why it cannot be settled, else null.';

revoke all on function billing.settle_parked_sale(text) from public, anon, authenticated, service_role;

grant execute on function billing.settle_parked_sale(text) to service_role;


create function billing.reopen(p_event_id text, p_payer_email text default null) returns boolean
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
        object_ids = null,
        payer_email = p_payer_email
    where event_id = p_event_id and resolution = 'discarded' and payload is not null;
    return found;
end
$$;

comment on function billing.reopen(text, text) is
    'Puts a discarded event back on the list, with the payer''s e-mail, so that it can be retried. Returns whether its payload was still kept.';

revoke all on function billing.reopen(text, text) from public, anon, authenticated, service_role;

grant execute on function billing.reopen(text, text) to service_role;


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
        when v_sale.erased or billing.lacks_nothing(v_sale) then 'settled'
    end;
end
$$;

comment on function billing.parked_already(text, text) is
    'Returns why reconciliation does not park an object: waiting or discarded, under an event of the object or its sale; settled if its sale is settled or erased. Null if it is to be parked.';

revoke all on function billing.parked_already(text, text) from public, anon, authenticated, service_role;

grant execute on function billing.parked_already(text, text) to service_role;

-- migrate:down
