"""The schema reference in Markdown: tables, types and functions, as listed in the database catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

SCHEMAS = {
    "public": "Exposed through Supabase's API. A project may keep other objects in it, which are not listed here.",
    "billing": "Facts about payments, parked events, and the functions that settle them. Never exposed through an API.",
}

_GRANTS = """
    select
        case grantee when 0 then 'public' else grantee::regrole::text end || ': '
        || string_agg(lower(privilege_type), ', ' order by privilege_type)
    from aclexplode(%(acl)s::aclitem[])
    where grantee <> grantor
    group by grantee
    order by 1
"""

# schema_migrations is dbmate's own table.
_TABLES = """
    select
        pg_class.oid,
        relname as name,
        obj_description(pg_class.oid, 'pg_class') as comment,
        relrowsecurity as has_rls,
        relacl::text as acl
    from pg_class
    where relnamespace = %(schema)s::regnamespace and relkind in ('r', 'p') and relname <> 'schema_migrations'
    order by relname collate "C"
"""

_COLUMNS = """
    select
        attname as name,
        format_type(atttypid, atttypmod) as type,
        case attidentity when '' then pg_get_expr(adbin, adrelid) else 'identity' end as default,
        attnotnull as is_not_null,
        col_description(attrelid, attnum) as comment,
        attacl::text as acl
    from pg_attribute
    join pg_class on pg_class.oid = attrelid
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attrelid = %(table)s and attnum > 0 and not attisdropped
    order by attnum
"""

# Postgres 18 also lists "not null" as constraints. The reference lists it with the columns instead.
_CONSTRAINTS = """
    select conname as name, pg_get_constraintdef(oid) as definition
    from pg_constraint
    where conrelid = %(table)s and contype in ('p', 'u', 'f', 'c', 'x')
    order by position(contype in 'pufcx'), conname collate "C"
"""

_INDEXES = """
    select
        relname as name,
        regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX .* USING', '\\1') as definition
    from pg_index
    join pg_class on pg_class.oid = indexrelid
    where
        indrelid = %(table)s
        and not exists (select from pg_constraint where conindid = indexrelid and contype in ('p', 'u'))
    order by relname collate "C"
"""

_POLICIES = """
    select policyname as name, lower(cmd) as command, array_to_string(roles, ', ') as roles, qual, with_check
    from pg_policies
    join pg_class on pg_class.oid = %(table)s
    join pg_namespace on pg_namespace.oid = relnamespace
    where schemaname = nspname and tablename = relname
    order by policyname collate "C"
"""

_TRIGGERS = """
    select
        tgname as name,
        regexp_replace(pg_get_triggerdef(oid), '^CREATE TRIGGER \\S+ (.*) ON \\S+ (.*)$', '\\1 \\2') as definition
    from pg_trigger
    where tgrelid = %(table)s and not tgisinternal
    order by tgname collate "C"
"""

_TYPES = """
    select
        typname as name,
        obj_description(pg_type.oid, 'pg_type') as comment,
        (select array_agg(enumlabel::text order by enumsortorder) from pg_enum where enumtypid = pg_type.oid) as labels,
        (
            select array_agg(attname || ' ' || format_type(atttypid, atttypmod) order by attnum)
            from pg_attribute
            where attrelid = typrelid and attnum > 0 and not attisdropped
        ) as fields,
        typacl::text as acl
    from pg_type
    left join pg_class on pg_class.oid = typrelid
    where typnamespace = %(schema)s::regnamespace and (typtype = 'e' or (typtype = 'c' and relkind = 'c'))
    order by typname collate "C"
"""

_FUNCTIONS = """
    select
        proname as name,
        pg_get_function_arguments(oid) as arguments,
        pg_get_function_result(oid) as result,
        obj_description(oid, 'pg_proc') as comment,
        prosecdef as is_definer,
        (
            select string_agg(setting, ', ' order by position)
            from unnest(proconfig) with ordinality as settings (setting, position)
        ) as settings,
        proacl::text as acl
    from pg_proc
    where pronamespace = %(schema)s::regnamespace
    order by proname collate "C", arguments
"""


def reference(connection: psycopg.Connection[Any]) -> str:
    """Return the generated part of docs/reference/schema.md."""
    with connection.transaction(force_rollback=True), connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute("set local search_path = pg_catalog")
        return "".join(part for schema in SCHEMAS for part in _schema(cursor, schema))


def _schema(cursor: psycopg.Cursor[Any], schema: str) -> Iterator[str]:
    yield f"\n## Schema {schema}\n\n{SCHEMAS[schema]}\n"
    for type_ in cursor.execute(_TYPES, {"schema": schema}).fetchall():
        yield from _type(cursor, schema, type_)
    for table in cursor.execute(_TABLES, {"schema": schema}).fetchall():
        yield from _table(cursor, schema, table)
    yield f"\n### Functions in {schema}\n"
    for function in cursor.execute(_FUNCTIONS, {"schema": schema}).fetchall():
        yield from _function(cursor, schema, function)


def _type(cursor: psycopg.Cursor[Any], schema: str, row: Any) -> Iterator[str]:
    yield f"\n### Type {schema}.{row.name}\n\n{row.comment}\n\n"
    if row.labels:
        yield f"- Values: {', '.join(f'`{label}`' for label in row.labels)}.\n"
    if row.fields:
        yield f"- Fields: {', '.join(f'`{field}`' for field in row.fields)}.\n"
    yield f"- Permissions: {'; '.join(_grants(cursor, row.acl)) or 'public: usage'}.\n"


def _table(cursor: psycopg.Cursor[Any], schema: str, table: Any) -> Iterator[str]:
    key = {"table": table.oid}
    columns = cursor.execute(_COLUMNS, key).fetchall()
    yield f"\n### Table {schema}.{table.name}\n\n{table.comment}\n\n"
    yield "| column | type | default | |\n| --- | --- | --- | --- |\n"
    for column in columns:
        type_ = f"{column.type}, not null" if column.is_not_null else column.type
        yield f"| `{column.name}` | {type_} | {_code(column.default)} | {_cell(column.comment)} |\n"
    grants = _grants(cursor, table.acl)
    grants += [f"{grant} of `{column.name}`" for column in columns for grant in _grants(cursor, column.acl)]
    yield f"\n- Permissions: {'; '.join(grants) or 'only the owner'}.\n"
    yield f"- Row-level security: {'on' if table.has_rls else 'off'}.\n"
    for policy in cursor.execute(_POLICIES, key).fetchall():
        check = f", with check `{policy.with_check}`" if policy.with_check else ""
        yield f"- Policy `{policy.name}`: {policy.command} by {policy.roles} using `{policy.qual}`{check}.\n"
    for kind, query in (("Constraint", _CONSTRAINTS), ("Index", _INDEXES), ("Trigger", _TRIGGERS)):
        for row in cursor.execute(query, key).fetchall():
            yield f"- {kind} `{row.name}`: `{' '.join(row.definition.split())}`.\n"


def _function(cursor: psycopg.Cursor[Any], schema: str, row: Any) -> Iterator[str]:
    yield f"\n#### {schema}.{row.name}\n\n```text\n{schema}.{row.name}({row.arguments}) returns {row.result}\n```\n\n"
    yield f"{row.comment}\n\n"
    security = "its owner (`security definer`)" if row.is_definer else "its caller"
    roles = [grant.removesuffix(": execute") for grant in _grants(cursor, row.acl)]
    yield f"- Runs as {security}, with `{row.settings}`.\n- Execute: {', '.join(roles) or 'only the owner'}.\n"


def _grants(cursor: psycopg.Cursor[Any], acl: str | None) -> list[str]:
    """Return the permissions of each role except the owner, such as ``service_role: insert, select``."""
    return [grant for (grant,) in cursor.execute(_GRANTS, {"acl": acl}).fetchall()] if acl else []


def _code(value: str | None) -> str:
    return f"`{value}`" if value else ""


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")
