-- migrate:up

-- Holds: credits reserved for a generation whose final cost is known only at its end, or that may die silently.
--
-- A hold is open while it is neither captured nor released and expires_at is later than clock_timestamp(). An expired hold
-- stops counting at that moment: nothing has to end it. Every call locks the user's row first and reads the clock
-- afterwards. now() is the start of the transaction, which may have waited for the lock since.

create table public.generation_holds (
    id uuid
        constraint generation_holds_pkey primary key,
    user_id uuid not null
        constraint generation_holds_user_id_fkey references public.users (id) on delete restrict,
    amount bigint not null
        constraint generation_holds_amount_range check (amount between 1 and 9007199254740991),
    expires_at timestamptz not null,
    captured_at timestamptz,
    released_at timestamptz,
    created_at timestamptz not null default now(),
    constraint generation_holds_one_end check (captured_at is null or released_at is null)
);

comment on table public.generation_holds is
    'Credits reserved for generations. An open hold lowers the available credits, not the balance.';

comment on column public.generation_holds.id is
    'The generation''s id: once the hold is captured, also the id of its GENERATION row.';

comment on column public.generation_holds.amount is
    'Credits, above 0: the most that the generation may cost.';

comment on column public.generation_holds.expires_at is
    'The hold counts until then, by the database''s clock. Afterwards its capture is a new debit.';

comment on column public.generation_holds.captured_at is
    'When its cost was debited.';

comment on column public.generation_holds.released_at is
    'When it was released without a debit.';

create index generation_holds_user_id_created_at_idx on public.generation_holds (user_id, created_at);

-- A user's open holds are one range of this index: ended ones are not in it, and expired ones lie before the range.
create index generation_holds_open_idx on public.generation_holds (user_id, expires_at)
where captured_at is null and released_at is null;

revoke all on public.generation_holds from public, anon, authenticated, service_role;

grant select on public.generation_holds to authenticated;

grant select, insert, update (expires_at, captured_at, released_at) on public.generation_holds to service_role;

alter table public.generation_holds enable row level security;

create policy generation_holds_select_own on public.generation_holds
    for select
    to authenticated
    using ((select auth.uid()) = user_id);


create function billing.refuse_hold_change() returns trigger
    language plpgsql
    set search_path = ''
as $$
begin
    raise exception 'the hold % has ended: update is refused', old.id
        using
            errcode = 'insufficient_privilege',
            hint = 'public.refund_generation(uuid) gives the credits of a captured hold back.';
end
$$;

comment on function billing.refuse_hold_change() is
    'Rejects every update of a captured or released hold, also by its owner.';

revoke all on function billing.refuse_hold_change() from public, anon, authenticated, service_role;

create trigger generation_holds_keep_ended
    before update on public.generation_holds
    for each row
    when (old.captured_at is not null or old.released_at is not null)
    execute function billing.refuse_hold_change();


create function billing.held_credits(p_user_id uuid, p_at timestamptz) returns bigint
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(sum(amount), 0)
        from public.generation_holds
        where
            user_id = p_user_id
            and captured_at is null
            and released_at is null
            and expires_at > p_at
    );
end
$$;

comment on function billing.held_credits(uuid, timestamptz) is
    'Returns the credits in a user''s holds that are open at this time.';

revoke all on function billing.held_credits(uuid, timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.held_credits(uuid, timestamptz) to service_role;


create function billing.available_credits(p_user_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
begin
    -- One statement: balance and holds come from one snapshot.
    return (
        select credits_balance - billing.held_credits(id, clock_timestamp())
        from public.users
        where id = p_user_id
    );
end
$$;

comment on function billing.available_credits(uuid) is
    'Returns the credits that a user can spend: the balance less the open holds. Below 0 after a refund of credits that are held or spent. Null if the user does not exist. It locks nothing.';

revoke all on function billing.available_credits(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.available_credits(uuid) to service_role;

create function billing.lock_spender(p_user_id uuid, p_cost bigint, p_generation_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_balance bigint;
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
    return v_balance;
end
$$;

comment on function billing.lock_spender(uuid, bigint, uuid) is
    'Checks the arguments of a call that spends, locks the user''s row and returns the balance. Errors: CR004 unknown_generation (id is null), CR005 invalid_cost, CR006 unknown_user.';

revoke all on function billing.lock_spender(uuid, bigint, uuid) from public, anon, authenticated, service_role;

grant execute on function billing.lock_spender(uuid, bigint, uuid) to service_role;


create function billing.lock_holder(p_generation_id uuid) returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_id uuid;
    v_balance bigint;
begin
    select user_id into v_user_id
    from public.generation_holds
    where id = p_generation_id;

    -- The user may have been erased since.
    select credits_balance into v_balance
    from public.users
    where id = v_user_id
    for no key update;
    if not found then
        raise exception 'unknown_generation'
            using
                errcode = 'CR004',
                detail = format('There is no hold for the generation %s.', coalesce(p_generation_id::text, 'null')),
                hint = 'Nothing was changed. If a reservation was cut off, repeat it until it answers.';
    end if;
    return v_balance;
end
$$;

comment on function billing.lock_holder(uuid) is
    'Locks the row of the user of a hold and returns the balance. Error: CR004 unknown_generation.';

revoke all on function billing.lock_holder(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.lock_holder(uuid) to service_role;


create function billing.lock_generation(p_generation_id uuid) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Two numbers: the locks of payments have one, so the two kinds never meet. The first is only for these locks.
    perform pg_advisory_xact_lock(20261127, uuid_hash(p_generation_id));
end
$$;

comment on function billing.lock_generation(uuid) is
    'Locks a new generation''s id, so that two users'' calls cannot both take it: one as a hold, one as a ledger row.';

revoke all on function billing.lock_generation(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.lock_generation(uuid) to service_role;


create function billing.refuse_refunded(p_generation_id uuid, p_action text) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from public.transactions where refunds = p_generation_id) then
        raise exception 'generation_refunded'
            using
                errcode = 'CR003',
                detail = format('The credits of the generation %s were given back.', p_generation_id),
                hint = format('Nothing was %s. Give the next attempt a new id.', p_action);
    end if;
end
$$;

comment on function billing.refuse_refunded(uuid, text) is
    'Rejects a generation whose credits were given back. p_action is what the caller did not do, such as spent. Error: CR003 generation_refunded.';

revoke all on function billing.refuse_refunded(uuid, text) from public, anon, authenticated, service_role;

grant execute on function billing.refuse_refunded(uuid, text) to service_role;

-- migrate:down
