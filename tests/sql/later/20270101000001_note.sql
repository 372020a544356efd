-- migrate:up

-- A migration of a later release, for test_upgrades.py alone: a new column, and the version that goes with it.

-- New deliveries queue behind a session that waits for a table's lock. So the migration fails soon, and can be run again.
set local lock_timeout = '3s';

alter table public.transactions
add column note text;

create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20270101000001';

-- migrate:down
