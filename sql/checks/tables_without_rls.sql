-- The tables of the ledger and of billing that lack row-level security. Run by webhook doctor.
--
-- The migrations' own list is left out: nobody but the owner has a right to it.

select nspname || '.' || relname
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where
    relkind in ('r', 'p')
    and not relrowsecurity
    and relname <> 'schema_migrations'
    and (nspname = 'billing' or (nspname = 'public' and relname in ('users', 'transactions')))
order by 1
