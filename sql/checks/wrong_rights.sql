-- Which right a role lacks, or has too much: what the grants beside each table say, looked at from outside, as
-- service_role. Run by webhook doctor.

with ours as (
    select
        pg_class.oid,
        nspname,
        nspname || '.' || relname as name
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where
        relkind in ('r', 'p')
        and (nspname = 'billing' or (nspname = 'public' and relname in ('users', 'transactions')))
),
strangers as (
    select
        oid,
        rolname
    from pg_roles
    where rolname in ('anon', 'authenticated')
),
rights as (
    select unnest(array['select', 'insert', 'update', 'delete', 'truncate']) as name
)

select 'service_role lacks ' || needed.name
from (
    values
        ('usage of schema billing', has_schema_privilege(to_regnamespace('billing'), 'usage')),
        ('execute on billing.record()', has_function_privilege(to_regprocedure('billing.record(jsonb)'), 'execute')),
        (
            'execute on billing.park()',
            has_function_privilege(to_regprocedure('billing.park(text, text, text, text, text)'), 'execute')
        ),
        (
            'execute on public.authorize_generation()',
            has_function_privilege(to_regprocedure('public.authorize_generation(uuid, bigint, uuid)'), 'execute')
        ),
        (
            'execute on public.refund_generation()',
            has_function_privilege(to_regprocedure('public.refund_generation(uuid)'), 'execute')
        ),
        ('select on public.users', has_table_privilege(to_regclass('public.users'), 'select')),
        ('select on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'select')),
        ('insert on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'insert'))
) as needed (name, has)
where has is not true

union all

select 'service_role has ' || forbidden.name
from (
    values
        ('update on public.transactions', has_any_column_privilege(to_regclass('public.transactions'), 'update')),
        ('delete on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'delete')),
        ('truncate on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'truncate')),
        (
            'update on public.users.credits_balance',
            has_column_privilege(to_regclass('public.users'), 'credits_balance', 'update')
        ),
        (
            'execute on billing.erase_user()',
            has_function_privilege(to_regprocedure('billing.erase_user(uuid)'), 'execute')
        )
) as forbidden (name, has)
where has

union all

select rolname || ' has usage of schema billing'
from strangers
where has_schema_privilege(strangers.oid, to_regnamespace('billing'), 'usage')

union all

select rolname || ' has ' || rights.name || ' on ' || ours.name
from strangers
cross join ours
cross join rights
where
    case
        when rights.name in ('delete', 'truncate') then has_table_privilege(strangers.oid, ours.oid, rights.name)
        else has_any_column_privilege(strangers.oid, ours.oid, rights.name)
    end
    and not (rolname = 'authenticated' and rights.name = 'select' and nspname = 'public')

union all

select rolname || ' has execute on ' || pg_proc.oid::regprocedure
from strangers
cross join pg_proc
where
    (
        pronamespace = to_regnamespace('billing')
        or pg_proc.oid in (
            to_regprocedure('public.authorize_generation(uuid, bigint, uuid)'),
            to_regprocedure('public.refund_generation(uuid)')
        )
    )
    and has_function_privilege(strangers.oid, pg_proc.oid, 'execute')
order by 1
