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
        or exists (select from billing.operator_actions where id = p_id)
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


create function billing.credits_of_users(p_payment_ids text[]) returns jsonb
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(user_id, amount), '{}')
    from (
        select
            user_id,
            sum(amount) as amount
        from billing.entries_of(p_payment_ids)
        group by user_id
    ) as users
$$;

comment on function billing.credits_of_users(text[]) is
    'Returns the credits of each user in the ledger rows of a sale, by user id.';

revoke all on function billing.credits_of_users(text[]) from public, anon, authenticated, service_role;


create function billing.changes_since(p_before jsonb, p_payment_ids text[]) returns jsonb
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        jsonb_agg(
            jsonb_build_object(
                'user_id', id,
                'credits', credits,
                'balance', credits_balance,
                'available', billing.available_credits(id)
            )
            order by
                credits,
                id
        ),
        '[]'
    )
    from (
        select
            (key)::uuid as user_id,
            value::bigint - coalesce(p_before ->> key, '0')::bigint as credits
        from jsonb_each_text(billing.credits_of_users(p_payment_ids))
    ) as changed
    join public.users on users.id = user_id
    where credits <> 0
$$;

comment on function billing.changes_since(jsonb, text[]) is
    'Returns the users whose credits from a sale differ from credits_of_users() before, those who lost most first: [{"user_id", "credits", "balance", "available"}].';

revoke all on function billing.changes_since(jsonb, text[]) from public, anon, authenticated, service_role;


create function billing.refuse_assignment(p_payment_id text, p_sale billing.merged_sale, p_event_id text, p_user_id uuid)
    returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason constant text := (
        select reason
        from billing.parked_events
        where event_id = p_event_id and resolution is null
    );
begin
    if v_reason in ('wrong_mode', 'unreadable', 'missing_api_key', 'missing_object') then
        raise exception 'not_assignable'
            using
                errcode = 'CR013',
                detail = format('The event %s is parked as %s: what it reports about money is not known.', p_event_id, v_reason),
                hint = 'Nothing was changed. Remove the cause and retry the event.';
    end if;
    if p_sale.payment_id is null then
        raise exception 'unknown_payment'
            using
                errcode = 'CR012',
                detail = format('No sale %s is known.', coalesce(p_payment_id, 'null')),
                hint = 'Nothing was changed. A paid Checkout Session is known by its payment, pi_…. webhook reconcile finds sales whose events never arrived.';
    end if;
    if p_sale.erased or (p_sale.forgotten and billing.unsettled_reason(p_sale) is not null) then
        raise exception 'erased_sale'
            using
                errcode = 'CR012',
                detail = format('The sale %s belonged to a user who was erased.', p_payment_id),
                hint = 'Nothing was changed. webhook adjust gives credits to another user.';
    end if;
    if p_user_id is not null and not exists (select from public.users where id = p_user_id) then
        raise exception 'unknown_user'
            using
                errcode = 'CR006',
                detail = format('There is no user %s.', p_user_id),
                hint = 'Nothing was changed. The user is the id of a row of public.users.';
    end if;
end
$$;

comment on function billing.refuse_assignment(text, billing.merged_sale, text, uuid) is
    'Raises why a sale cannot be assigned, if it cannot. Errors: CR006 unknown_user, CR012 unknown_payment or erased_sale, CR013 not_assignable.';

revoke all on function billing.refuse_assignment(text, billing.merged_sale, text, uuid)
from public, anon, authenticated, service_role;


create function billing.refuse_debt(p_changes jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_debts constant text := (
        select string_agg(
            format('takes %s credits from the user %s, who would have %s available', -credits, user_id, available),
            ' and '
        )
        from jsonb_to_recordset(p_changes) as change (user_id uuid, credits bigint, available bigint)
        where credits < 0 and available < 0
    );
begin
    if v_debts is not null then
        raise exception 'insufficient_credits'
            using
                errcode = 'CR001',
                detail = format('This %s.', v_debts),
                hint = 'Nothing was changed. Allow the debt to do it (--allow-debt, p_allow_debt).';
    end if;
end
$$;

comment on function billing.refuse_debt(jsonb) is
    'Raises CR001 insufficient_credits if changes_since() took credits that a user does not have.';

revoke all on function billing.refuse_debt(jsonb) from public, anon, authenticated, service_role;


create function billing.known_assignment(
    p_payment_ids text[],
    p_user_id uuid,
    p_credits bigint,
    p_reason text,
    p_id uuid,
    p_withdraws bigint
) returns bigint
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_known record;
    v_number bigint;
begin
    select * into v_known
    from billing.operator_actions
    where id = p_id;
    if not found then
        return null;
    end if;
    select number into v_number
    from billing.assignments
    where
        payment_id = any (p_payment_ids)
        and v_known.reason = p_reason
        and case
            when p_withdraws is not null then withdrawn_by = v_known.number -- Another one may be the latest by now.
            else number = v_known.number and (user_id, credits) is not distinct from (p_user_id, p_credits)
        end;
    if not found then
        raise exception 'assignment_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to another action.', p_id),
                hint = 'Nothing was changed. Repeat a call with the same values; give a new action a new id.';
    end if;
    return v_known.number;
end
$$;

comment on function billing.known_assignment(text[], uuid, bigint, text, uuid, bigint) is
    'Returns the number of the action with this id, null if there is none. Error: CR002 assignment_mismatch.';

revoke all on function billing.known_assignment(text[], uuid, bigint, text, uuid, bigint)
from public, anon, authenticated, service_role;


create function billing.withdraw_assignment(p_payment_ids text[], p_withdraws bigint, p_number bigint) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    update billing.assignments
    set withdrawn_by = p_number
    where
        number = p_withdraws
        and number = (
            select max(number)
            from billing.assignments
            where payment_id = any (p_payment_ids) and withdrawn_by is null
        );
    if not found then
        raise exception 'not_latest'
            using
                errcode = 'CR014',
                detail = format('Action %s is not the latest assignment of this sale that is not withdrawn.', p_withdraws),
                hint = 'Nothing was changed. Another operator may have been faster: look at the sale again.';
    end if;
end
$$;

comment on function billing.withdraw_assignment(text[], bigint, bigint) is
    'Ends the latest assignment of a sale. Error: CR014 not_latest.';

revoke all on function billing.withdraw_assignment(text[], bigint, bigint) from public, anon, authenticated, service_role;


-- p_withdraws ends that assignment, which has to be the latest one; p_user_id and p_credits are then null. p_event_id is the
-- parked event whose facts were recorded before: it is resolved if the sale lacks nothing any more. p_most_credits limits what
-- is set, given and taken.
create function billing.assign(
    p_payment_id text,
    p_user_id uuid,
    p_credits bigint,
    p_reason text,
    p_by text,
    p_id uuid,
    p_withdraws bigint default null,
    p_event_id text default null,
    p_channel text default 'sql',
    p_allow_debt boolean default false,
    p_most_credits bigint default null
) returns jsonb
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids text[];
    v_sale billing.merged_sale;
    v_number bigint;
    v_before jsonb;
    v_changes jsonb;
    v_given bigint;
    v_taken bigint;
    v_settled record;
begin
    perform billing.check_action_texts(p_reason, p_by, null);
    if p_id is null or (p_withdraws is null) = (num_nonnulls(p_user_id, p_credits) = 0) then
        raise exception 'invalid_assignment'
            using
                errcode = 'CR005',
                detail = 'An assignment has an id, and a user or credits; a withdrawal has an id and an assignment.',
                hint = 'Nothing was changed.';
    end if;
    if p_credits not between 1 and 1000000000 then
        raise exception 'invalid_credits'
            using
                errcode = 'CR005',
                detail = format('The credits are %s.', p_credits),
                hint = 'Nothing was changed. A sale has from 1 to 1000000000 credits.';
    end if;

    perform billing.lock_payments(array[p_payment_id]);
    v_payment_ids := billing.linked_payments(array[p_payment_id]);
    perform billing.lock_users(jsonb_build_array(
        jsonb_build_object('kind', 'assignment', 'payment_id', p_payment_id, 'user_id', p_user_id)
    ));
    v_number := billing.known_assignment(v_payment_ids, p_user_id, p_credits, p_reason, p_id, p_withdraws);
    if v_number is not null then
        v_sale := billing.sale_of(v_payment_ids);
        return jsonb_build_object(
            'number', v_number, 'is_new', false, 'paid', v_sale.paid,
            'unsettled', billing.unsettled_reason(v_sale), 'changes', '[]'::jsonb
        );
    end if;
    v_sale := billing.sale_of(v_payment_ids);
    perform billing.refuse_assignment(p_payment_id, v_sale, p_event_id, p_user_id);

    v_before := billing.credits_of_users(v_payment_ids);
    v_number := nextval('billing.operator_actions_number_seq');
    if p_withdraws is null then
        insert into billing.assignments (number, payment_id, user_id, credits)
        values (v_number, p_payment_id, p_user_id, p_credits);
    else
        perform billing.withdraw_assignment(v_payment_ids, p_withdraws, v_number);
    end if;
    v_settled := billing.settle_sale(
        v_payment_ids,
        billing.sale_of(v_payment_ids),
        jsonb_build_object(
            'kind', 'assignment',
            'payment_id', coalesce((billing.purchase_of(v_payment_ids, null)).purchase_id, v_sale.payment_id)
        ),
        'action:' || v_number
    );
    if v_settled.reason is not null and v_sale.paid then
        perform billing.park_sale(v_payment_ids, v_settled.reason, v_settled.is_lost or p_withdraws is not null);
    elsif v_settled.reason is null and p_event_id is not null then
        perform billing.resolve(p_event_id);
    end if;

    v_changes := billing.changes_since(v_before, v_payment_ids);
    if p_allow_debt is not true then
        perform billing.refuse_debt(v_changes);
    end if;
    select
        coalesce(sum(credits) filter (where credits > 0), 0),
        coalesce(-sum(credits) filter (where credits < 0), 0)
    into v_given, v_taken
    from jsonb_to_recordset(v_changes) as change (credits bigint);
    if greatest(v_given, v_taken, p_credits) > p_most_credits then
        raise exception 'too_many_credits'
            using
                errcode = 'CR015',
                detail = format(
                    'One action may move %s credits at most. This sets %s, gives %s and takes %s.',
                    p_most_credits, coalesce(p_credits, 0), v_given, v_taken
                ),
                hint = 'Nothing was changed.';
    end if;
    perform billing.add_action(
        v_number,
        p_id,
        case when p_withdraws is null then 'assign' else 'withdraw' end,
        p_payment_id,
        p_by,
        p_channel,
        p_reason,
        null,
        v_given,
        v_taken
    );
    return jsonb_build_object(
        'number', v_number, 'is_new', true, 'paid', v_sale.paid, 'unsettled', v_settled.reason, 'changes', v_changes
    );
end
$$;

comment on function billing.assign(text, uuid, bigint, text, text, uuid, bigint, text, text, boolean, bigint) is
    'Assigns user, credits or both to a sale, or withdraws the latest assignment, and settles the sale. Returns {"number", "is_new", "paid", "unsettled": why it is not settled, "changes": as changes_since()}. The same call again changes nothing. Errors: CR001 insufficient_credits (without p_allow_debt), CR002 assignment_mismatch, CR005 invalid_assignment or invalid_credits, CR006 unknown_user, CR010 missing_text or text_too_long, CR012 unknown_payment or erased_sale, CR013 not_assignable, CR014 not_latest, CR015 too_many_credits (more than p_most_credits).';

revoke all on function billing.assign(text, uuid, bigint, text, text, uuid, bigint, text, text, boolean, bigint)
from public, anon, authenticated, service_role;

grant execute on function billing.assign(text, uuid, bigint, text, text, uuid, bigint, text, text, boolean, bigint)
to billing_operator;


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
    perform billing.drop_discarded_payloads();
end
$$;

comment on function billing.discard(text[], text, text, text) is
    'Discards parked events, all or none. Their payloads are kept for 30 days. Returns each event, and the number of its action if it was open. An event that is delivered again and can be settled is still settled. Errors: CR010 missing_text or text_too_long, CR011 not_parked.';

revoke all on function billing.discard(text[], text, text, text)
from public, anon, authenticated, service_role;

grant execute on function billing.discard(text[], text, text, text) to billing_operator;

-- migrate:down
