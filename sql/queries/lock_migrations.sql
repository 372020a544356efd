-- Serialises programs that prepare the database for migrations, until the transaction ends.

select pg_catalog.pg_advisory_xact_lock(%(key)s)
