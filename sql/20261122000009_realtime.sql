-- migrate:up

-- Supabase Realtime: a user's page hears of changes of its own balance. Plain Postgres has no such publication.
--
-- Realtime shows a row to whom row-level security shows it. The primary key is enough as replica identity: subscribers get
-- the new row, and of the old one its id.

set local lock_timeout = '3s';

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
end
$$;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000009';

-- migrate:down
