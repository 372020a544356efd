-- Creates the table of applied migrations as the Supabase CLI does. dbmate fills its first column.
-- https://supabase.com/docs/reference/cli/supabase-migration

create schema if not exists supabase_migrations;

create table if not exists supabase_migrations.schema_migrations (
    version text not null primary key,
    statements text[],
    name text
)
