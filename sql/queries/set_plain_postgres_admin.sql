-- Sets the owner of the schema for sql/plain_postgres, until the transaction ends.

select pg_catalog.set_config('plain_postgres.admin', %(admin)s, true)
