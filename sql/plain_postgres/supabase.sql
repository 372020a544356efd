-- The objects of hosted Supabase that plain Postgres lacks: roles, auth.users and auth.uid().
--
-- This file is not a migration, and Supabase does not need it. `webhook dev`, the tests and
-- `webhook migrate --plain-postgres` apply it in one transaction, and can apply it again. It needs one of these roles:
--
-- - a superuser (Postgres 15 to 18)
-- - an admin with createrole, bypassrls and permission to create schemas in the database (Postgres 16 or newer)
--
-- The admin owns the tables of the migrations. The setting plain_postgres.admin names it; by default it is the current
-- role. A superuser that runs this file gives the admin the attributes and permissions of `postgres` on Supabase, which
-- is not a superuser either.

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'supabase_admin') then
        raise exception 'this server is Supabase, which has its own roles and auth.users';
    end if;
end
$$;


-- All databases of a server share its roles, so another session may create them at the same time.
do $$
declare
    role_name text;
begin
    foreach role_name in array array['anon', 'authenticated', 'service_role', 'authenticator', 'supabase_auth_admin'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
            begin
                execute format('create role %I nologin noinherit', role_name);
            exception
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;

    if not (select rolbypassrls from pg_catalog.pg_roles where rolname = 'service_role') then
        alter role service_role bypassrls;
    end if;

    -- On Supabase, authenticator may log in. Here it needs `alter role authenticator login password …` first.
    foreach role_name in array array['anon', 'authenticated', 'service_role'] loop
        if not pg_catalog.pg_has_role('authenticator', role_name, 'member') then
            execute format('grant %I to authenticator', role_name);
        end if;
    end loop;
end
$$;


-- The permissions of Supabase's admin, which owns the database and is not a superuser.
do $$
declare
    admin constant name not null := coalesce(nullif(current_setting('plain_postgres.admin', true), ''), current_user);
begin
    if admin = current_user or not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        return;
    end if;

    execute format('alter role %I createrole createdb bypassrls', admin);
    execute format('grant create on database %I to %I', current_database(), admin);
    execute format('grant create, usage on schema public to %I with grant option', admin);
    execute format('grant anon, authenticated, service_role, authenticator to %I with admin option', admin);
end
$$;


do $$
begin
    if
        to_regprocedure('auth.uid()') is not null
        and 2 = (
            select count(*)
            from pg_catalog.pg_attribute
            where
                attrelid = to_regclass('auth.users')
                and ((attname = 'id' and atttypid = 'uuid'::regtype) or attname = 'email')
        )
    then
        return;
    end if;
    if to_regnamespace('auth') is not null then
        raise exception 'another application uses the schema auth: it lacks auth.uid() or auth.users (id uuid, email)'
            using errcode = 'duplicate_schema';
    end if;

    create schema auth;
    perform set_config('plain_postgres.has_created_auth', 'true', true);

    -- The main columns of Supabase's table, with its types.
    create table auth.users (
        instance_id uuid,
        id uuid not null
            constraint users_pkey primary key,
        aud varchar(255),
        role varchar(255),
        email varchar(255),
        encrypted_password varchar(255),
        email_confirmed_at timestamptz,
        last_sign_in_at timestamptz,
        raw_app_meta_data jsonb,
        raw_user_meta_data jsonb,
        is_super_admin boolean,
        created_at timestamptz,
        updated_at timestamptz,
        phone text
            constraint users_phone_key unique,
        banned_until timestamptz,
        is_sso_user boolean not null default false,
        deleted_at timestamptz,
        is_anonymous boolean not null default false
    );

    comment on table auth.users is
        'Stands in for Supabase Auth''s table of accounts.';

    alter table auth.users enable row level security;

    create function auth.jwt() returns jsonb
        language sql
        stable
    as $function$
        select coalesce(
            nullif(current_setting('request.jwt.claim', true), ''),
            nullif(current_setting('request.jwt.claims', true), '')
        )::jsonb
    $function$;

    create function auth.uid() returns uuid
        language sql
        stable
    as $function$
        select coalesce(
            nullif(current_setting('request.jwt.claim.sub', true), ''),
            nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
        )::uuid
    $function$;

    create function auth.role() returns text
        language sql
        stable
    as $function$
        select coalesce(
            nullif(current_setting('request.jwt.claim.role', true), ''),
            nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
        )
    $function$;
end
$$;


-- As on Supabase, supabase_auth_admin owns these objects, and the admin has all other permissions on auth.users.
do $$
declare
    admin constant name not null := coalesce(nullif(current_setting('plain_postgres.admin', true), ''), current_user);
    is_superuser constant boolean not null := (select rolsuper from pg_catalog.pg_roles where rolname = current_user);
    is_new constant boolean not null := coalesce(current_setting('plain_postgres.has_created_auth', true), '') = 'true';
begin
    -- A role that is not a superuser can transfer objects only to a role of which it is a member.
    if is_new and not is_superuser then
        execute format('grant supabase_auth_admin to %I', current_user);
    end if;

    if is_new then
        alter schema auth owner to supabase_auth_admin;
        alter table auth.users owner to supabase_auth_admin;
        alter function auth.jwt() owner to supabase_auth_admin;
        alter function auth.uid() owner to supabase_auth_admin;
        alter function auth.role() owner to supabase_auth_admin;

        grant usage on schema auth to anon, authenticated, service_role;
    end if;

    if not has_table_privilege(admin, 'auth.users', 'trigger') or is_new then
        execute format('grant usage on schema auth to %I', admin);
        execute format('grant insert, update, delete, truncate, references, trigger on auth.users to %I', admin);
        execute format('grant select on auth.users to %I with grant option', admin);
    end if;

    if is_new and not is_superuser then
        execute format('revoke supabase_auth_admin from %I', current_user);
    end if;
end
$$;
