-- Tables of the ledger and of billing that lack row-level security. Run by webhook doctor.
--
-- dbmate's table of applied migrations is left out: only its owner has permissions on it.

select
    'row_level_security' as check,
    json_build_object('table', nspname || '.' || relname) as subject,
    'row-level security is off' as problem,
    to_json('on'::text) as expected,
    to_json('off'::text) as found
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where
    relkind in ('r', 'p')
    and not relrowsecurity
    and relname <> 'schema_migrations'
    and (nspname = 'billing' or (nspname = 'public' and relname in ('users', 'transactions', 'generation_holds')))
order by
    nspname,
    relname
