-- migrate:up

-- Spending: a generation is authorised if the balance covers it, and its credits are given back once if it fails.
--
-- Both functions lock the user's row before they decide, as record() does, and lock nothing that record() could wait for.
-- They run as their caller, service_role. Under repeatable read they fail with 40001 instead of deciding by an old balance.

create function public.authorize_generation(
    p_user_id uuid,
    p_cost bigint,
    p_generation_id uuid
) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_balance bigint;
    v_known public.transactions;
begin
    if coalesce(p_cost, 0) <= 0 then
        raise exception 'invalid_cost'
            using
                errcode = 'CR005',
                detail = format('The cost is %s.', coalesce(p_cost::text, 'null')),
                hint = 'A cost is a whole number of credits, above 0.';
    end if;
    if p_generation_id is null then
        raise exception 'unknown_generation'
            using
                errcode = 'CR004',
                detail = 'The generation''s id is null.',
                hint = 'Make a uuid for each generation, and keep it for every repetition.';
    end if;

    -- This waits for any transaction that holds the row, and then reads the balance that it committed.
    select credits_balance into v_balance
    from public.users
    where id = p_user_id
    for no key update;
    if not found then
        raise exception 'unknown_user'
            using
                errcode = 'CR006',
                detail = format('There is no user %s.', coalesce(p_user_id::text, 'null')),
                hint = 'p_user_id is the id of a row of public.users, which every account has.';
    end if;

    select * into v_known
    from public.transactions
    where id = p_generation_id;
    if not found then
        if v_balance < p_cost then
            raise exception 'insufficient_credits'
                using
                    errcode = 'CR001',
                    detail = format('The balance is %s, the cost %s.', v_balance, p_cost),
                    hint = 'Nothing was spent. Once credits were bought, the same call can succeed.';
        end if;
        insert into public.transactions (id, user_id, amount, type)
        values (p_generation_id, p_user_id, -p_cost, 'GENERATION')
        on conflict (id) do nothing;
        if found then
            return v_balance - p_cost;
        end if;
        -- Another user's call took the id at this moment.
    end if;

    if (v_known.type, v_known.user_id, v_known.amount) is distinct from ('GENERATION', p_user_id, -p_cost) then
        raise exception 'generation_mismatch'
            using
                errcode = 'CR002',
                detail = format('The id %s belongs to another user, cost or kind of entry.', p_generation_id),
                hint = 'Nothing was spent. Repeat a call with the same user and cost; give a new generation a new id.';
    end if;
    if exists (select from public.transactions where refunds = p_generation_id) then
        raise exception 'generation_refunded'
            using
                errcode = 'CR003',
                detail = format('The credits of the generation %s were given back.', p_generation_id),
                hint = 'Nothing was spent. Give the next attempt a new id.';
    end if;
    return v_balance;
end
$$;

comment on function public.authorize_generation(uuid, bigint, uuid) is
    'Debits p_cost credits for a generation and returns the new balance. The same call again debits nothing and returns the balance. Errors: CR001 insufficient_credits, CR002 generation_mismatch, CR003 generation_refunded, CR004 unknown_generation (id is null), CR005 invalid_cost, CR006 unknown_user.';

revoke all on function public.authorize_generation(uuid, bigint, uuid) from public, anon, authenticated, service_role;

grant execute on function public.authorize_generation(uuid, bigint, uuid) to service_role;


create function public.refund_generation(p_generation_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
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
                detail = format('No generation %s was authorised.', coalesce(p_generation_id::text, 'null')),
                hint = 'Nothing was given back. If an authorisation was cut off, repeat it until it answers, then refund.';
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
create function public.check_refunded_generation() returns trigger
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

comment on function public.check_refunded_generation() is
    'Rejects a REFUND row unless it gives back a whole generation of the same user, so that no credits are created.';

revoke all on function public.check_refunded_generation() from public, anon, authenticated, service_role;

create trigger transactions_refunds_a_generation
    after insert on public.transactions
    for each row
    when (new.refunds is not null)
    execute function public.check_refunded_generation();

-- migrate:down
