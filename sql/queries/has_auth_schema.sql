-- Returns whether the database has the schema auth, of Supabase or of sql/plain_postgres.

select pg_catalog.to_regnamespace('auth') is not null as found
