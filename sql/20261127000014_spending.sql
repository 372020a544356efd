-- migrate:up

-- Spending: a generation is paid for if the available credits cover it, and its credits are given back once if it fails.
-- Either its cost is debited at once, or it is reserved first and captured at the end.
--
-- All functions lock the user's row before they decide, as record() does, and lock nothing that record() could wait for.
-- They run as their caller, service_role. Under repeatable read they fail with 40001 instead of deciding by old rows.
--
-- Sequential scans are off: a plan that was made while the tables were short would read all of them when they are long.

create function public.authorize_generation(
    p_user_id uuid,
    p_cost bigint,
    p_generation_id uuid
) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    v_balance bigint := billing.lock_spender(p_user_id, p_cost, p_generation_id);
    v_held bigint;
    v_known public.transactions;
begin
    select * into v_known
    from public.transactions
    where id = p_generation_id;
    if not found then
        perform billing.lock_generation(p_generation_id);
    end if;
    if exists (select from public.generation_holds where id = p_generation_id) then
        raise exception 'generation_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to a hold.', p_generation_id),
                hint = 'Nothing was spent. capture_generation() debits a hold; give a new generation a new id.';
    end if;

    if v_known.id is null then
        v_held := billing.held_credits(p_user_id, clock_timestamp());
        if v_balance - v_held < p_cost then
            raise exception 'insufficient_credits'
                using
                    errcode = 'CR001',
                    detail = format('The balance is %s, of which %s are held. The cost is %s.', v_balance, v_held, p_cost),
                    hint = 'Nothing was spent. Once credits were bought, the same call can succeed.';
        end if;
        insert into public.transactions (id, user_id, amount, type)
        values (p_generation_id, p_user_id, -p_cost, 'GENERATION')
        on conflict (id) do nothing;
        if found then
            return v_balance - p_cost;
        end if;
        -- Another user's row took the id at this moment.
    end if;

    if (v_known.type, v_known.user_id, v_known.amount) is distinct from ('GENERATION', p_user_id, -p_cost) then
        raise exception 'generation_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to another user, cost or kind of entry.', p_generation_id),
                hint = 'Nothing was spent. Repeat a call with the same user and cost; give a new generation a new id.';
    end if;
    perform billing.refuse_refunded(p_generation_id, 'spent');
    return v_balance;
end
$$;

comment on function public.authorize_generation(uuid, bigint, uuid) is
    'Debits p_cost credits for a generation and returns the new balance. The same call again debits nothing and returns the balance. Errors: CR001 insufficient_credits, CR002 generation_mismatch, CR003 generation_refunded, CR004 unknown_generation (id is null), CR005 invalid_cost, CR006 unknown_user.';

revoke all on function public.authorize_generation(uuid, bigint, uuid) from public, anon, authenticated, service_role;

grant execute on function public.authorize_generation(uuid, bigint, uuid) to service_role;


create function public.reserve_generation(
    p_user_id uuid,
    p_cost bigint,
    p_generation_id uuid,
    p_expires_in interval default '1 hour'
) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    -- Seconds, so that a day has 24 hours and a month 30 days, on any date and in any time zone.
    v_seconds numeric := extract(epoch from p_expires_in);
    v_balance bigint;
    v_now timestamptz;
    v_held bigint;
    v_hold public.generation_holds;
begin
    if (v_seconds > 0 and v_seconds <= 604800) is not true then
        raise exception 'invalid_expiry'
            using
                errcode = 'CR009',
                detail = format('The time until the hold expires is %s.', coalesce(p_expires_in::text, 'null')),
                hint = 'Nothing was reserved. p_expires_in is above 0 and at most 7 days.';
    end if;
    v_balance := billing.lock_spender(p_user_id, p_cost, p_generation_id);
    v_now := clock_timestamp();
    v_held := billing.held_credits(p_user_id, v_now);

    select * into v_hold
    from public.generation_holds
    where id = p_generation_id;
    if found then
        if (v_hold.user_id, v_hold.amount) is distinct from (p_user_id, p_cost) then
            raise exception 'generation_mismatch'
                using
                    errcode = 'CR002',
                    detail = format('The hold %s belongs to another user or cost.', p_generation_id),
                    hint = 'Nothing was reserved. Repeat a call with the same user and cost; give a new generation a new id.';
        end if;
        if v_hold.released_at is not null then
            raise exception 'generation_released'
                using
                    errcode = 'CR003',
                    detail = format('The hold %s was released.', p_generation_id),
                    hint = 'Nothing was reserved. Give the next attempt a new id.';
        end if;
        perform billing.refuse_refunded(p_generation_id, 'reserved');
        if v_hold.captured_at is not null or v_hold.expires_at > v_now then
            return v_balance - v_held;
        end if;
    else
        perform billing.lock_generation(p_generation_id);
        if exists (select from public.transactions where id = p_generation_id) then
            raise exception 'generation_mismatch'
                using
                    errcode = 'CR002',
                    detail = format('The id %s belongs to a row of the ledger.', p_generation_id),
                    hint = 'Nothing was reserved. Give a new generation a new id.';
        end if;
    end if;

    if v_balance - v_held < p_cost then
        raise exception 'insufficient_credits'
            using
                errcode = 'CR001',
                detail = format('The balance is %s, of which %s are held. The cost is %s.', v_balance, v_held, p_cost),
                hint = 'Nothing was reserved. Once credits were bought, the same call can succeed.';
    end if;
    insert into public.generation_holds as known (id, user_id, amount, expires_at)
    values (p_generation_id, p_user_id, p_cost, v_now + v_seconds * interval '1 second')
    on conflict (id) do update set expires_at = excluded.expires_at
    where (known.user_id, known.amount) = (excluded.user_id, excluded.amount);
    if not found then
        -- Another user's call took the id at this moment.
        raise exception 'generation_mismatch'
            using
                errcode = 'CR002',
                detail = format('The hold %s belongs to another user or cost.', p_generation_id),
                hint = 'Nothing was reserved. Give a new generation a new id.';
    end if;
    -- A new version of the row: a caller with an older snapshot fails with 40001, which does not show it this hold.
    update public.users
    set email = email
    where id = p_user_id;
    return v_balance - v_held - p_cost;
end
$$;

comment on function public.reserve_generation(uuid, bigint, uuid, interval) is
    'Reserves p_cost credits for a generation and returns the available credits: the balance less the open holds. The same call again neither reserves more nor extends an open hold; an expired one is reserved again. Errors: CR001 insufficient_credits, CR002 generation_mismatch, CR003 generation_released or generation_refunded, CR004 unknown_generation (id is null), CR005 invalid_cost, CR006 unknown_user, CR009 invalid_expiry.';

revoke all on function public.reserve_generation(uuid, bigint, uuid, interval)
from public, anon, authenticated, service_role;

grant execute on function public.reserve_generation(uuid, bigint, uuid, interval) to service_role;


create function public.capture_generation(p_generation_id uuid, p_cost bigint default null) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    v_balance bigint;
    v_now timestamptz;
    v_held bigint;
    v_hold public.generation_holds;
    v_known public.transactions;
begin
    if p_cost <= 0 then
        raise exception 'invalid_cost'
            using
                errcode = 'CR005',
                detail = format('The cost is %s.', p_cost),
                hint = 'A cost is a whole number of credits, above 0. release_generation() ends a hold without a debit.';
    end if;
    v_balance := billing.lock_holder(p_generation_id);
    v_now := clock_timestamp();

    select * into v_hold
    from public.generation_holds
    where id = p_generation_id;
    p_cost := coalesce(p_cost, v_hold.amount);
    if p_cost > v_hold.amount then
        raise exception 'cost_above_hold'
            using
                errcode = 'CR007',
                detail = format('The hold is %s, the cost %s.', v_hold.amount, p_cost),
                hint = 'Nothing was captured. Reserve the most that a generation may cost.';
    end if;
    if v_hold.released_at is not null then
        raise exception 'generation_released'
            using
                errcode = 'CR003',
                detail = format('The hold %s was released.', p_generation_id),
                hint = 'Nothing was captured. Give the next attempt a new id.';
    end if;

    if v_hold.captured_at is not null then
        select * into v_known
        from public.transactions
        where id = p_generation_id;
        if v_known.amount is distinct from -p_cost then
            raise exception 'generation_mismatch'
                using
                    errcode = 'CR002',
                    detail = format('The hold %s was captured for another cost.', p_generation_id),
                    hint = 'Nothing was captured. Repeat a call with the same cost.';
        end if;
        perform billing.refuse_refunded(p_generation_id, 'captured');
        return v_balance;
    end if;

    -- After its expiry, the capture is a new debit.
    if v_hold.expires_at <= v_now then
        v_held := billing.held_credits(v_hold.user_id, v_now);
        if v_balance - v_held < p_cost then
            raise exception 'insufficient_credits'
                using
                    errcode = 'CR001',
                    detail = format(
                        'The hold expired at %s. The balance is %s, of which %s are held. The cost is %s.',
                        v_hold.expires_at, v_balance, v_held, p_cost
                    ),
                    hint = 'Nothing was captured. Once credits were bought, the same call can succeed.';
        end if;
    end if;
    insert into public.transactions (id, user_id, amount, type)
    values (p_generation_id, v_hold.user_id, -p_cost, 'GENERATION')
    on conflict (id) do nothing;
    if not found then
        raise exception 'generation_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to a row of the ledger that no capture wrote.', p_generation_id),
                hint = 'Nothing was captured. Give a new generation a new id.';
    end if;
    update public.generation_holds
    set captured_at = v_now
    where id = p_generation_id;
    return v_balance - p_cost;
end
$$;

comment on function public.capture_generation(uuid, bigint) is
    'Debits a hold, for p_cost credits or by default for all of it, and returns the new balance. An open hold is always debited; an expired one only if the available credits cover the cost. The same call again debits nothing and returns the balance. Errors: CR001 insufficient_credits, CR002 generation_mismatch, CR003 generation_released or generation_refunded, CR004 unknown_generation, CR005 invalid_cost, CR007 cost_above_hold.';

revoke all on function public.capture_generation(uuid, bigint) from public, anon, authenticated, service_role;

grant execute on function public.capture_generation(uuid, bigint) to service_role;


create function public.release_generation(p_generation_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    v_balance bigint := billing.lock_holder(p_generation_id);
    v_now timestamptz := clock_timestamp();
    v_hold public.generation_holds;
begin
    select * into v_hold
    from public.generation_holds
    where id = p_generation_id;
    if v_hold.captured_at is not null then
        raise exception 'generation_captured'
            using
                errcode = 'CR008',
                detail = format('The hold %s was captured.', p_generation_id),
                hint = 'Nothing was released. refund_generation() gives the credits of a captured hold back.';
    end if;
    if v_hold.released_at is null then
        update public.generation_holds
        set released_at = v_now
        where id = p_generation_id;
    end if;
    return v_balance - billing.held_credits(v_hold.user_id, v_now);
end
$$;

comment on function public.release_generation(uuid) is
    'Ends a hold without a debit, once even if called several times, and returns the available credits. Errors: CR004 unknown_generation, CR008 generation_captured.';

revoke all on function public.release_generation(uuid) from public, anon, authenticated, service_role;

grant execute on function public.release_generation(uuid) to service_role;


create function public.refund_generation(p_generation_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    v_balance bigint;
    v_generation public.transactions;
begin
    select * into v_generation
    from public.transactions
    where id = p_generation_id and type = 'GENERATION';

    -- The user may have been erased since.
    select credits_balance into v_balance
    from public.users
    where id = v_generation.user_id
    for no key update;
    if not found then
        raise exception 'unknown_generation'
            using
                errcode = 'CR004',
                detail = format('No generation %s was debited.', coalesce(p_generation_id::text, 'null')),
                hint = 'Nothing was given back. release_generation() ends a hold. If an authorisation was cut off, repeat it until it answers, then refund.';
    end if;

    insert into public.transactions (user_id, amount, type, refunds)
    values (v_generation.user_id, -v_generation.amount, 'REFUND', p_generation_id)
    on conflict (refunds) where refunds is not null do nothing;
    return v_balance - case when found then v_generation.amount else 0 end;
end
$$;

comment on function public.refund_generation(uuid) is
    'Gives back the credits of a failed generation, once even if called several times, and returns the balance. Error: CR004 unknown_generation.';

revoke all on function public.refund_generation(uuid) from public, anon, authenticated, service_role;

grant execute on function public.refund_generation(uuid) to service_role;


-- A foreign key checks the id alone.
create function billing.check_refunded_generation() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select
        from public.transactions
        where
            id = new.refunds
            and type = 'GENERATION'
            and user_id = new.user_id
            and amount = -new.amount
    ) then
        raise exception 'refunds has to name a generation of the same user and cost'
            using
                errcode = 'check_violation',
                constraint = 'transactions_refunds_a_generation',
                schema = 'public',
                table = 'transactions',
                hint = 'public.refund_generation(uuid) gives a generation back.';
    end if;
    return null;
end
$$;

comment on function billing.check_refunded_generation() is
    'Rejects a REFUND row unless it gives back a whole generation of the same user, so that no credits are created.';

revoke all on function billing.check_refunded_generation() from public, anon, authenticated, service_role;

create trigger transactions_refunds_a_generation
    after insert on public.transactions
    for each row
    when (new.refunds is not null)
    execute function billing.check_refunded_generation();

-- migrate:down
