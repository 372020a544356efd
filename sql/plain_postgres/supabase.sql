-- What hosted Supabase provides and plain Postgres lacks: roles, auth.users and auth.uid().
--
-- No migration, and nothing for Supabase itself: `webhook dev`, the tests and `webhook migrate --plain-postgres` apply
-- it, in one transaction, as often as they like. A superuser can (Postgres 15 to 18); from Postgres 16 on so can an
-- admin with createrole and bypassrls that may create schemas in the database.
--
-- The admin that owns the migrations' tables is the role that the setting plain_postgres.admin names, else whoever
-- runs this. Run by a superuser, it gives that role what Supabase's own `postgres` has, which is no superuser either.

do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'supabase_admin') then
        raise exception 'this server is Supabase, which has its own roles and auth.users';
    end if;
end
$$;


-- Roles belong to the server, not to the database: another database may be making them at this moment.
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

    -- Supabase's authenticator may log in; here whoever wants that gives it a password first.
    foreach role_name in array array['anon', 'authenticated', 'service_role'] loop
        if not pg_catalog.pg_has_role('authenticator', role_name, 'member') then
            execute format('grant %I to authenticator', role_name);
        end if;
    end loop;
end
$$;


-- What Supabase's admin may do beyond owning the database: it is no superuser.
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
    if to_regclass('auth.users') is not null then
        return;
    end if;

    create schema auth;

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


-- As on Supabase, Auth's own role owns all this, and the admin may do everything with auth.users but own it.
do $$
declare
    admin constant name not null := coalesce(nullif(current_setting('plain_postgres.admin', true), ''), current_user);
    is_superuser constant boolean not null := (select rolsuper from pg_catalog.pg_roles where rolname = current_user);
    is_new constant boolean not null :=
        (select pg_get_userbyid(nspowner) = current_user from pg_catalog.pg_namespace where nspname = 'auth');
begin
    -- Whoever is no superuser hands objects only to a role that it belongs to.
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
