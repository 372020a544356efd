-- Permissions that a role lacks or has too much, compared with the grants in sql/. Run by webhook doctor, as service_role.

with tables as (
    select
        pg_class.oid,
        nspname,
        nspname || '.' || relname as name
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where
        relkind in ('r', 'p')
        and (nspname = 'billing' or (nspname = 'public' and relname in ('users', 'transactions', 'generation_holds')))
),
clients as (
    select
        oid,
        rolname
    from pg_roles
    where rolname in ('anon', 'authenticated')
),
privileges as (
    select unnest(array['select', 'insert', 'update', 'delete', 'truncate']) as name
),
-- What the worker and the video generator need.
needed (permission, granted) as (
    values
        ('usage of schema billing', has_schema_privilege(to_regnamespace('billing'), 'usage')),
        ('execute on billing.record()', has_function_privilege(to_regprocedure('billing.record(jsonb)'), 'execute')),
        (
            'execute on billing.park()',
            has_function_privilege(to_regprocedure('billing.park(text, text, text, text, text, text, text)'), 'execute')
        ),
        (
            'execute on public.authorize_generation()',
            has_function_privilege(to_regprocedure('public.authorize_generation(uuid, bigint, uuid)'), 'execute')
        ),
        (
            'execute on public.refund_generation()',
            has_function_privilege(to_regprocedure('public.refund_generation(uuid)'), 'execute')
        ),
        (
            'execute on public.reserve_generation()',
            has_function_privilege(to_regprocedure('public.reserve_generation(uuid, bigint, uuid, interval)'), 'execute')
        ),
        (
            'execute on public.capture_generation()',
            has_function_privilege(to_regprocedure('public.capture_generation(uuid, bigint)'), 'execute')
        ),
        (
            'execute on public.release_generation()',
            has_function_privilege(to_regprocedure('public.release_generation(uuid)'), 'execute')
        ),
        ('select on billing.operator_actions', has_table_privilege(to_regclass('billing.operator_actions'), 'select')),
        ('select on billing.assignments', has_table_privilege(to_regclass('billing.assignments'), 'select')),
        ('select on public.users', has_table_privilege(to_regclass('public.users'), 'select')),
        ('select on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'select')),
        ('insert on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'insert')),
        ('update on public.users.email', has_column_privilege(to_regclass('public.users'), 'email', 'update')),
        ('select on public.generation_holds', has_table_privilege(to_regclass('public.generation_holds'), 'select')),
        ('insert on public.generation_holds', has_table_privilege(to_regclass('public.generation_holds'), 'insert')),
        (
            'update on public.generation_holds.expires_at',
            has_column_privilege(to_regclass('public.generation_holds'), 'expires_at', 'update')
        ),
        (
            'update on public.generation_holds.captured_at',
            has_column_privilege(to_regclass('public.generation_holds'), 'captured_at', 'update')
        ),
        (
            'update on public.generation_holds.released_at',
            has_column_privilege(to_regclass('public.generation_holds'), 'released_at', 'update')
        )
),
-- What only the trigger, an operator and the owner may do.
forbidden (permission, granted) as (
    values
        ('update on public.transactions', has_any_column_privilege(to_regclass('public.transactions'), 'update')),
        ('delete on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'delete')),
        ('truncate on public.transactions', has_table_privilege(to_regclass('public.transactions'), 'truncate')),
        (
            'update on public.users.credits_balance',
            has_column_privilege(to_regclass('public.users'), 'credits_balance', 'update')
        ),
        (
            'update on public.generation_holds.user_id',
            has_column_privilege(to_regclass('public.generation_holds'), 'user_id', 'update')
        ),
        (
            'update on public.generation_holds.amount',
            has_column_privilege(to_regclass('public.generation_holds'), 'amount', 'update')
        ),
        (
            'delete on public.generation_holds',
            has_table_privilege(to_regclass('public.generation_holds'), 'delete')
        ),
        (
            'truncate on public.generation_holds',
            has_table_privilege(to_regclass('public.generation_holds'), 'truncate')
        ),
        (
            'insert on billing.operator_actions',
            has_any_column_privilege(to_regclass('billing.operator_actions'), 'insert')
        ),
        (
            'update on billing.operator_actions',
            has_any_column_privilege(to_regclass('billing.operator_actions'), 'update')
        ),
        (
            'delete on billing.operator_actions',
            has_table_privilege(to_regclass('billing.operator_actions'), 'delete')
        ),
        (
            'truncate on billing.operator_actions',
            has_table_privilege(to_regclass('billing.operator_actions'), 'truncate')
        ),
        ('insert on billing.assignments', has_any_column_privilege(to_regclass('billing.assignments'), 'insert')),
        ('update on billing.assignments', has_any_column_privilege(to_regclass('billing.assignments'), 'update')),
        ('delete on billing.assignments', has_table_privilege(to_regclass('billing.assignments'), 'delete')),
        ('truncate on billing.assignments', has_table_privilege(to_regclass('billing.assignments'), 'truncate')),
        (
            'execute on billing.assign()',
            has_function_privilege(
                to_regprocedure(
                    'billing.assign(text, uuid, bigint, text, text, uuid, bigint, text, text, boolean, bigint)'
                ),
                'execute'
            )
        ),
        (
            'execute on billing.adjust()',
            has_function_privilege(
                to_regprocedure('billing.adjust(uuid, bigint, text, text, uuid, text, text, boolean)'),
                'execute'
            )
        ),
        (
            'execute on billing.discard()',
            has_function_privilege(to_regprocedure('billing.discard(text[], text, text, text)'), 'execute')
        ),
        (
            'execute on billing.erase_user()',
            has_function_privilege(to_regprocedure('billing.erase_user(uuid)'), 'execute')
        )
),
found (role, permission, has_it) as (
    select
        'service_role',
        permission,
        false
    from needed
    where granted is not true
    union all
    select
        'service_role',
        permission,
        true
    from forbidden
    where granted
    union all
    select
        rolname,
        'usage of schema billing',
        true
    from clients
    where has_schema_privilege(clients.oid, to_regnamespace('billing'), 'usage')
    union all
    select
        rolname,
        privileges.name || ' on ' || tables.name,
        true
    from clients
    cross join tables
    cross join privileges
    where
        case
            when privileges.name in ('delete', 'truncate') then has_table_privilege(clients.oid, tables.oid, privileges.name)
            else has_any_column_privilege(clients.oid, tables.oid, privileges.name)
        end
        and not (rolname = 'authenticated' and privileges.name = 'select' and nspname = 'public')
    union all
    select
        rolname,
        'execute on ' || pg_proc.oid::regprocedure,
        true
    from clients
    cross join pg_proc
    where
        (
            pronamespace = to_regnamespace('billing')
            or pg_proc.oid in (
                to_regprocedure('public.authorize_generation(uuid, bigint, uuid)'),
                to_regprocedure('public.refund_generation(uuid)'),
                to_regprocedure('public.reserve_generation(uuid, bigint, uuid, interval)'),
                to_regprocedure('public.capture_generation(uuid, bigint)'),
                to_regprocedure('public.release_generation(uuid)')
            )
        )
        and has_function_privilege(clients.oid, pg_proc.oid, 'execute')
)

select
    'permissions' as check,
    json_build_object('role', role, 'permission', permission) as subject,
    role || case when has_it then ' has ' else ' lacks ' end || permission as problem,
    to_json(not has_it) as expected,
    to_json(has_it) as found
from found
order by problem
