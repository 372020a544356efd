-- migrate:up

-- The functions of billing_operator. Each writes its effect and its row in billing.operator_actions together.
--
-- They are security definer: billing_operator has no permission on any table. They lock as every other writer does: sales,
-- then users. They append the action last, after the ledger rows, as erase_user() locks these tables.

create function billing.adjust(
    p_user_id uuid,
    p_amount bigint,
    p_reason text,
    p_by text,
    p_id uuid,
    p_description text default null,
    p_channel text default 'sql',
    p_allow_debt boolean default false,
    out number bigint,
    out balance bigint,
    out is_new boolean
)
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_available bigint;
begin
    perform billing.check_action_texts(p_reason, p_by, p_description);
    if p_id is null then
        raise exception 'missing_id'
            using
                errcode = 'CR004',
                detail = 'The adjustment''s id is null.',
                hint = 'Make a uuid for each adjustment, and keep it for every repetition.';
    end if;
    if p_amount is null or p_amount = 0 or abs(p_amount::numeric) > 1000000000 then
        raise exception 'invalid_amount'
            using
                errcode = 'CR005',
                detail = format('The amount is %s.', coalesce(p_amount::text, 'null')),
                hint = 'An amount is a whole number of credits, not 0, from -1000000000 to 1000000000.';
    end if;

    -- This waits for any transaction that holds the row, and then reads the balance that it committed.
    select credits_balance into balance
    from public.users
    where id = p_user_id
    for no key update;
    if not found then
        raise exception 'unknown_user'
            using
                errcode = 'CR006',
                detail = format('There is no user %s.', coalesce(p_user_id::text, 'null')),
                hint = 'Nothing was changed. The user is the id of a row of public.users.';
    end if;

    select actions.number into number
    from billing.operator_actions as actions
    join public.transactions as entries using (id)
    where
        actions.id = p_id
        and (entries.user_id, entries.amount) = (p_user_id, p_amount)
        and (actions.reason, entries.description) is not distinct from (p_reason, p_description);
    is_new := not found;
    if not is_new then
        return;
    end if;

    -- A hold's generation and an adjustment cannot share an id.
    perform billing.lock_generation(p_id);
    if
        exists (select from public.transactions where id = p_id)
        or exists (select from public.generation_holds where id = p_id)
    then
        raise exception 'adjustment_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to another user, amount, reason, description or kind of entry.', p_id),
                hint = 'Nothing was changed. Repeat a call with the same values; give a new adjustment a new id.';
    end if;
    v_available := billing.available_credits(p_user_id);
    if p_amount < 0 and v_available + p_amount < 0 and p_allow_debt is not true then
        raise exception 'insufficient_credits'
            using
                errcode = 'CR001',
                detail = format('The available credits are %s, the amount is %s.', v_available, p_amount),
                hint = 'Nothing was changed. Take less, or allow the debt (--allow-debt, p_allow_debt).';
    end if;
    insert into public.transactions (id, user_id, amount, type, description)
    values (p_id, p_user_id, p_amount, 'REFUND', p_description);
    number := nextval('billing.operator_actions_number_seq');
    balance := balance + p_amount;
    perform billing.add_action(
        number, p_id, 'adjust', p_user_id::text, p_by, p_channel, p_reason, p_description,
        greatest(p_amount, 0), greatest(-p_amount, 0)
    );
end
$$;

comment on function billing.adjust(uuid, bigint, text, text, uuid, text, text, boolean) is
    'Gives credits to a user, or takes them if p_amount is below 0: a REFUND row with the id p_id. The same call again changes nothing. Returns the action''s number, the balance and whether it was new. Errors: CR001 insufficient_credits (the available credits would be below 0, without p_allow_debt), CR002 adjustment_mismatch, CR004 missing_id, CR005 invalid_amount, CR006 unknown_user, CR010 missing_text or text_too_long.';

revoke all on function billing.adjust(uuid, bigint, text, text, uuid, text, text, boolean)
from public, anon, authenticated, service_role;

grant execute on function billing.adjust(uuid, bigint, text, text, uuid, text, text, boolean) to billing_operator;


create function billing.discard(
    p_event_ids text[],
    p_by text,
    p_reason text,
    p_channel text default 'sql'
) returns table (event_id text, number bigint)
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_missing constant text := (
        select string_agg(requested.id, ', ' order by requested.id)
        from (select distinct unnest(p_event_ids)) as requested (id)
        left join billing.parked_events as parked on parked.event_id = requested.id
        where parked.event_id is null or parked.resolution = 'settled'
    );
    v_event record;
    v_number bigint;
begin
    perform billing.check_action_texts(p_reason, p_by, null);
    if v_missing is not null then
        raise exception 'not_parked'
            using
                errcode = 'CR011',
                detail = format('Not parked (any more): %s.', v_missing),
                hint = 'Nothing was discarded.';
    end if;
    perform billing.drop_discarded_payloads();
    for v_event in
        select
            parked.event_id,
            parked.resolution
        from billing.parked_events as parked
        where parked.event_id = any (p_event_ids)
        order by parked.event_id
        for no key update
    loop
        v_number := null;
        if v_event.resolution is null then
            update billing.parked_events as parked
            set
                resolution = 'discarded',
                resolved_at = now(),
                discarded_by = p_by || ' as ' || session_user,
                discard_reason = p_reason,
                -- As text: the operators of json reject a body that contains \u0000 or half a surrogate pair.
                object_ids = case
                    when parked.payment_id is null then array(
                        select distinct found[1]
                        from regexp_matches(parked.payload::text, '"id":[[:space:]]*"([!#-~]{1,255})"', 'g') as found
                    )
                end
            where parked.event_id = v_event.event_id;
            v_number := nextval('billing.operator_actions_number_seq');
            perform billing.add_action(
                v_number, gen_random_uuid(), 'discard', v_event.event_id, p_by, p_channel, p_reason, null, 0, 0
            );
        end if;
        return query select v_event.event_id, v_number;
    end loop;
end
$$;

comment on function billing.discard(text[], text, text, text) is
    'Discards parked events, all or none. Their payloads are kept for 30 days. Returns each event, and the number of its action if it was open. An event that is delivered again and can be settled is still settled. Errors: CR010 missing_text or text_too_long, CR011 not_parked.';

revoke all on function billing.discard(text[], text, text, text)
from public, anon, authenticated, service_role;

grant execute on function billing.discard(text[], text, text, text) to billing_operator;

-- migrate:down
