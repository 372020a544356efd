-- migrate:up

-- Stops before anything is created if another application has objects with the names of this schema.
--
-- `webhook migrate` also runs this file before it creates its history, and before it adds what plain Postgres lacks.

do $$
declare
    v_taken text;
begin
    with names (kind, name) as (
        values
            ('relation', 'generation_holds'),
            ('relation', 'generation_holds_open_idx'),
            ('relation', 'generation_holds_pkey'),
            ('relation', 'generation_holds_user_id_created_at_idx'),
            ('relation', 'transactions'),
            ('relation', 'transactions_created_at_idx'),
            ('relation', 'transactions_payment_id_idx'),
            ('relation', 'transactions_pkey'),
            ('relation', 'transactions_refunds_key'),
            ('relation', 'transactions_stripe_id_key'),
            ('relation', 'transactions_user_id_created_at_idx'),
            ('relation', 'users'),
            ('relation', 'users_email_idx'),
            ('relation', 'users_pkey'),
            ('type', 'transaction_type'),
            -- A function of the same name and other arguments counts, too: a call could mean either.
            ('function', 'authorize_generation'),
            ('function', 'capture_generation'),
            ('function', 'refund_generation'),
            ('function', 'release_generation'),
            ('function', 'reserve_generation'),
            ('function', 'update_user_credits')
    ),
    taken (text) as (
        select case when relkind in ('i', 'I') then 'index public.' else 'table public.' end || relname
        from names
        join pg_catalog.pg_class on relname = name
        where kind = 'relation' and relnamespace = 'public'::regnamespace
        union all
        select 'type public.' || typname
        from names
        join pg_catalog.pg_type on typname = name
        where kind = 'type' and typnamespace = 'public'::regnamespace
        union all
        select distinct 'function public.' || proname
        from names
        join pg_catalog.pg_proc on proname = name
        where kind = 'function' and pronamespace = 'public'::regnamespace
        union all
        select 'schema billing'
        where
            -- `webhook migrate` may have created the schema, with its history alone.
            exists (
                select
                from pg_catalog.pg_class
                where relnamespace = to_regnamespace('billing') and relname not in ('schema_migrations', 'schema_migrations_pkey')
            )
            or exists (
                select
                from pg_catalog.pg_proc
                where pronamespace = to_regnamespace('billing')
            )
        union all
        -- A function that inserts into public.users at each sign-up would fail, and the sign-up with it.
        select distinct 'function ' || pronamespace::regnamespace || '.' || proname || ' inserts into public.users'
        from pg_catalog.pg_trigger
        join pg_catalog.pg_proc on pg_proc.oid = tgfoid
        where tgrelid = to_regclass('auth.users') and prosrc ~* '\minsert\s+into\s+("?public"?\s*\.\s*)?"?users"?\M'
    )
    select string_agg(text, ', ' order by text) into v_taken
    from taken;

    -- Another process may have applied the schema since.
    if v_taken is not null and to_regprocedure('billing.guard_credits_balance()') is null then
        raise exception 'another application uses names of this schema: %. See "Beside your own tables" in docs/how-to/supabase.md', v_taken
            using errcode = 'duplicate_object';
    end if;
end
$$;

-- migrate:down
