-- migrate:up

-- Supabase Realtime: a user's page receives changes of its own balance and holds. Plain Postgres has no such publication.
--
-- Realtime sends a row to the clients that row-level security lets see it. The primary key is enough as replica identity:
-- subscribers get the new row, and only the id of the old one. No policy applies to a deleted row, so the ids of a deleted
-- account and its holds reach every client that subscribes to deletions.

do $$
declare
    v_table text;
begin
    if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
        return;
    end if;
    foreach v_table in array array['users', 'generation_holds'] loop
        begin
            -- It may be there by name, with its schema or with all tables.
            if not exists (
                select
                from pg_catalog.pg_publication_tables
                where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = v_table
            ) then
                execute format('alter publication supabase_realtime add table public.%I', v_table);
            end if;
        exception
            -- Another role may own the publication, as in a self-hosted Realtime. The rest works without it.
            when insufficient_privilege then
                raise notice 'public.% is not published to Realtime: %', v_table, sqlerrm
                    using hint = format('As a superuser: alter publication supabase_realtime add table public.%I;', v_table);
        end;
    end loop;
end
$$;

-- migrate:down
