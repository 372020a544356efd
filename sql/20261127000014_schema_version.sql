-- migrate:up

-- The version of the schema.

create function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261127000014';

comment on function billing.schema_version() is
    'The newest migration applied, whichever tool applied it.';

revoke all on function billing.schema_version() from public, anon, authenticated, service_role;

grant execute on function billing.schema_version() to service_role;

-- migrate:down
