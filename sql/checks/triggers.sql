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
disabled as (
    select
        tgname,
        tgconstraint,
        tgrelid::regclass::text as table_name,
        case when tgenabled = 'D' then 'disabled' else 'enabled only for replication' end as state
    from pg_trigger
    where tgenabled in ('D', 'R')
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
        expected.name,
        expected.table_name,
        'is missing',
        statement
    from expected
    where not exists (select from pg_trigger where tgname = expected.name and tgrelid = to_regclass(expected.table_name))
    union all
    select
        expected.name,
        expected.table_name,
        'calls ' || tgfoid::regprocedure,
        'drop trigger ' || expected.name || ' on ' || expected.table_name || '; ' || statement
    from expected
    join pg_trigger on tgname = expected.name and tgrelid = to_regclass(expected.table_name)
    where tgfoid is distinct from to_regprocedure(expected.function)
    union all
    select
        expected.name,
        expected.table_name,
        'is ' || state,
        'alter table ' || expected.table_name || ' enable trigger ' || expected.name
    from expected
    join disabled on tgname = expected.name and disabled.table_name = expected.table_name
    union all
    select distinct
        conname,
        table_name,
        'is a foreign key whose trigger is ' || state,
        'alter table ' || table_name || ' enable trigger all (as a superuser)'
    from disabled
    join foreign_keys on foreign_keys.oid = tgconstraint
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
