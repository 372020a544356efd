-- Begins every read of the console, as {role}: read only, so that a page cannot lock a row or change one.

set transaction isolation level read committed, read only;
select
    pg_catalog.set_config('statement_timeout', %(page_timeout)s, true),
    pg_catalog.set_config('lock_timeout', '1s', true),
    pg_catalog.set_config('role', '{role}', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
