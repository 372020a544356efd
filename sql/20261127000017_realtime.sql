-- migrate:up

-- Supabase Realtime: a user's page receives changes of its own balance. Plain Postgres has no such publication.
--
-- Realtime sends a row to the clients that row-level security lets see it. The primary key is enough as replica identity:
-- subscribers get the new row, and only the id of the old one. No policy applies to a deleted row, so the id of a deleted
-- account reaches every client that subscribes to deletions.

do $$
begin
    if
        exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime')
        and not exists (
            -- It may be there by name, with its schema or with all tables.
            select
            from pg_catalog.pg_publication_tables
            where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'users'
        )
    then
        alter publication supabase_realtime add table public.users;
    end if;
exception
    -- Another role may own the publication, as in a self-hosted Realtime. The rest works without it.
    when insufficient_privilege then
        raise notice 'public.users is not published to Realtime: %', sqlerrm
            using hint = 'As a superuser: alter publication supabase_realtime add table public.users;';
end
$$;

-- migrate:down
