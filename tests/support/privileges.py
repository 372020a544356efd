"""Every privilege in a database, as lines that a test can compare."""

from __future__ import annotations

import psycopg

from support.databases import OPERATOR, WORKER, Database
from webhook.dev.postgres import ADMIN

NAMED_ROLES = (
    "anon",
    "authenticated",
    "service_role",
    "billing_operator",
    "authenticator",
    "supabase_auth_admin",
    WORKER,
    OPERATOR,
    ADMIN,
)

# Every schema except those of Postgres itself.
OWN_SCHEMAS = "(select oid from pg_namespace where nspname !~ '^(pg_|information_schema$)')"

_PRIVILEGES_OF_ALL = f"""
    with objects (kind, name, acl, owner) as (
        select 'database:', null, coalesce(datacl, acldefault('d', datdba)), datdba
        from pg_database
        where datname = current_database()
        union all
        select 'schema', nspname::text, coalesce(nspacl, acldefault('n', nspowner)), nspowner
        from pg_namespace
        where oid in {OWN_SCHEMAS}
        union all
        select
            case relkind when 'S' then 'sequence' else 'table' end,
            oid::regclass::text,
            coalesce(relacl, acldefault(case relkind when 'S' then 's'::"char" else 'r' end, relowner)),
            relowner
        from pg_class
        where relnamespace in {OWN_SCHEMAS} and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        union all
        select
            'row',
            concat(attrelid::regclass, ': ', string_agg(attname, ',' order by attnum)),
            null,
            null
        from pg_attribute
        join pg_class on pg_class.oid = attrelid
        where
            relnamespace in {OWN_SCHEMAS}
            and relnamespace <> 'auth'::regnamespace -- Supabase defines its columns
            and relkind in ('r', 'p', 'v', 'm', 'f')
            and attnum > 0
            and not attisdropped
        group by attrelid
        union all
        select 'column', attrelid::regclass || '.' || attname, attacl, relowner
        from pg_attribute
        join pg_class on pg_class.oid = attrelid
        where relnamespace in {OWN_SCHEMAS} and attacl is not null
        union all
        select 'function', oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), proowner
        from pg_proc
        where pronamespace in {OWN_SCHEMAS}
        union all
        select 'type', oid::regtype::text, coalesce(typacl, acldefault('T', typowner)), typowner
        from pg_type
        where
            typnamespace in {OWN_SCHEMAS}
            and typelem = 0
            and not exists (select from pg_class where oid = typrelid and relkind <> 'c')
        union all
        select 'large object', oid::text, lomacl, lomowner
        from pg_largeobject_metadata
        union all
        -- The default privileges, in one schema or in all of them.
        select
            'default',
            concat_ws(' in ', defaclobjtype, nullif(defaclnamespace, 0)::regnamespace),
            defaclacl,
            defaclrole
        from pg_default_acl
        union all
        -- The roles that we know, and every role that is a member of one of them.
        select
            'role',
            rolname || concat(
                case when rolsuper then ' superuser' end,
                case when rolcreaterole then ' createrole' end,
                case when rolcreatedb then ' createdb' end,
                case when rolreplication then ' replication' end,
                case when rolbypassrls then ' bypassrls' end,
                ' member of ' || (
                    select string_agg(distinct roleid::regrole::text, ',')
                    from pg_auth_members
                    where
                        member = pg_roles.oid
                        -- Since Postgres 16, the role that creates another one is a member of it.
                        and (roleid::regrole::text, rolname) is distinct from ('billing_operator', %(admin)s)
                )
            ),
            null,
            null
        from pg_roles
        where
            rolname = any (%(roles)s)
            or oid in (select member from pg_auth_members where roleid::regrole::text = any (%(roles)s))
    )
    select concat_ws(
        ' ',
        kind,
        name || ':',
        'owner=' || nullif(owner, current_user::regrole)::regrole,
        (
            select string_agg(granted, ' ' order by granted)
            from (
                select concat(
                    case grantee when 0 then 'public' else grantee::regrole::text end,
                    '=',
                    string_agg(
                        lower(privilege_type) || case when is_grantable then '*' else '' end,
                        ',' order by privilege_type
                    )
                ) as granted
                from aclexplode(acl)
                where grantee not in (owner, current_user::regrole)
                group by grantee
            ) as grants
        )
    )
    from objects
    order by kind collate "C", name collate "C"
"""


def privileges(database: Database) -> list[str]:
    """Return the privileges of every role but the owner, one line for each object."""
    with psycopg.connect(database.admin_url) as admin:
        return privileges_seen_by(admin)


def privileges_seen_by(admin: psycopg.Connection) -> list[str]:
    """Return the same for the database of this connection."""
    admin.execute("set search_path = ''")
    return [line for (line,) in admin.execute(_PRIVILEGES_OF_ALL, {"roles": [*NAMED_ROLES], "admin": ADMIN})]
