-- migrate:up

-- The version of the schema: the name of the newest migration. Each later migration replaces this function.

create function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261127000018';

comment on function billing.schema_version() is
    'Returns the version of the newest migration applied, with any tool. Every later migration replaces this function.';

revoke all on function billing.schema_version() from public, anon, authenticated, service_role;

grant execute on function billing.schema_version() to service_role;

-- migrate:down
