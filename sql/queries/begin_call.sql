-- Begins every call with the settings that another client of a transaction pooler may have changed, as {role}.
-- The isolation level has a statement of its own: after a select it could not change.

set transaction isolation level read committed, read write;
select
    pg_catalog.set_config('statement_timeout', '8s', true),
    pg_catalog.set_config('lock_timeout', '4s', true),
    pg_catalog.set_config('role', '{role}', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config('synchronous_commit', 'on', true);
