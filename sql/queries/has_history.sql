-- Returns whether a table of applied migrations exists.

select pg_catalog.to_regclass(%(history)s) is not null as found
