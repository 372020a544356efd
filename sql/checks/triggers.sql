-- Triggers that are missing, replaced or disabled, and settings that disable all of them. Run by webhook doctor.
--
-- The parameter is the list of triggers in the migrations: name, table_name, function, and the statement that makes it.
-- `expected` is the statement that restores a trigger.

with expected as (
    select
        name,
        table_name,
        function,
        statement
    from json_to_recordset(%(triggers)s) as trigger (name text, table_name text, function text, statement text)
),
-- By name: the conversion to regclass needs permission to use the schema.
present as (
    select
        tgname as name,
        nspname || '.' || relname as table_name,
        tgfoid,
        tgconstraint,
        case tgenabled when 'D' then 'disabled' when 'R' then 'enabled only for replication' end as state
    from pg_trigger
    join pg_class on pg_class.oid = tgrelid
    join pg_namespace on pg_namespace.oid = relnamespace
),
foreign_keys as (
    select
        pg_constraint.oid,
        conname
    from pg_constraint
    join pg_class on pg_class.oid = conrelid
    where
        contype = 'f'
        and (
            relnamespace = to_regnamespace('billing')
            or (
                relnamespace = to_regnamespace('public')
                and relname in ('users', 'transactions', 'generation_holds')
            )
        )
),
found (name, table_name, problem, expected) as (
    select
        name,
        table_name,
        'is missing',
        statement
    from expected
    left join present using (name, table_name)
    where tgfoid is null
    union all
    select
        name,
        table_name,
        'calls ' || tgfoid::regprocedure,
        'drop trigger ' || name || ' on ' || table_name || '; ' || statement
    from expected
    join present using (name, table_name)
    where tgfoid is distinct from to_regprocedure(function)
    union all
    select
        name,
        table_name,
        'is ' || state,
        'alter table ' || table_name || ' enable trigger ' || name
    from expected
    join present using (name, table_name)
    where state is not null
    union all
    select distinct
        conname,
        table_name,
        'is a foreign key whose trigger is ' || state,
        'alter table ' || table_name || ' enable trigger all (as a superuser)'
    from present
    join foreign_keys on foreign_keys.oid = tgconstraint
    where state is not null
),
replicas (place, remedy) as (
    select
        place,
        'alter ' || place || ' reset session_replication_role'
    from pg_db_role_setting
    left join pg_database on pg_database.oid = setdatabase
    cross join lateral (
        select
            case
                when setdatabase = 0 then 'role ' || setrole::regrole
                when setrole = 0 then 'database ' || quote_ident(datname)
                else 'role ' || setrole::regrole || ' in database ' || quote_ident(datname)
            end as place
    ) as named
    where
        'session_replication_role=replica' = any (setconfig)
        and (setdatabase = 0 or datname = current_database())
    union all
    select
        'the ' || source,
        'remove it there'
    from pg_settings
    where name = 'session_replication_role' and setting = 'replica' and source not in ('database', 'user', 'database user')
)

select
    'triggers' as check,
    json_build_object('table', table_name, 'trigger', name) as subject,
    name || ' on ' || table_name || ' ' || problem as problem,
    to_json(expected) as expected,
    null::json as found
from found
union all
select
    'triggers',
    json_build_object('setting', 'session_replication_role', 'place', place),
    'session_replication_role of ' || place || ' is replica, which disables every trigger',
    to_json(remedy),
    to_json('replica'::text)
from replicas
order by problem
