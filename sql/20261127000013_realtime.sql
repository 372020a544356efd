-- migrate:up

-- Supabase Realtime: a user's page hears of changes of its own balance. Plain Postgres has no such publication.
--
-- Realtime shows a row to whom row-level security shows it. The primary key is enough as replica identity: subscribers get
-- the new row, and of the old one its id. A row that is gone has no policy any more: the id of an erased account reaches
-- everybody who subscribes to deletions.

do $$
begin
    if
        exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime')
        and not exists (
            -- However it got there: by name, with its schema or with all tables.
            select
            from pg_catalog.pg_publication_tables
            where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'users'
        )
    then
        alter publication supabase_realtime add table public.users;
    end if;
exception
    -- Somebody else's publication, as where Realtime is self-hosted, is no reason to do without the rest.
    when insufficient_privilege then
        raise notice 'public.users is not published to Realtime: %', sqlerrm
            using hint = 'As a superuser: alter publication supabase_realtime add table public.users;';
end
$$;

-- migrate:down
