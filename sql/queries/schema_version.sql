-- Returns the version of the newest migration in the database.

select billing.schema_version() as version
