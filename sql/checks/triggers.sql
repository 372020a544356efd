-- Triggers that are missing, replaced or disabled, and settings that disable all of them. Run by webhook doctor.
--
-- `expected` is the statement that restores the trigger.

with expected (name, table_name, function, statement) as (
    values
        (
            'billing_account_created',
            'auth.users',
            'billing.copy_account()',
            'create trigger billing_account_created after insert on auth.users for each row execute function billing.copy_account()'
        ),
        (
            'billing_email_changed',
            'auth.users',
            'billing.copy_account()',
            'create trigger billing_email_changed after update of email on auth.users for each row'
            ' when (new.email is distinct from old.email) execute function billing.copy_account()'
        ),
        (
            'users_insert_without_credits',
            'public.users',
            'billing.guard_credits_balance()',
            'create trigger users_insert_without_credits before insert on public.users for each row'
            ' when (new.credits_balance <> 0) execute function billing.guard_credits_balance()'
        ),
        (
            'users_update_without_credits',
            'public.users',
            'billing.guard_credits_balance()',
            'create trigger users_update_without_credits before update on public.users for each row'
            ' when (new.credits_balance is distinct from old.credits_balance) execute function billing.guard_credits_balance()'
        ),
        (
            'generation_holds_keep_ended',
            'public.generation_holds',
            'billing.refuse_hold_change()',
            'create trigger generation_holds_keep_ended before update on public.generation_holds for each row'
            ' when (old.captured_at is not null or old.released_at is not null)'
            ' execute function billing.refuse_hold_change()'
        ),
        (
            'transactions_append_only',
            'public.transactions',
            'billing.refuse_ledger_change()',
            'create trigger transactions_append_only before update or delete or truncate on public.transactions'
            ' for each statement execute function billing.refuse_ledger_change()'
        ),
        (
            'transactions_refunds_a_generation',
            'public.transactions',
            'billing.check_refunded_generation()',
            'create trigger transactions_refunds_a_generation after insert on public.transactions for each row'
            ' when (new.refunds is not null) execute function billing.check_refunded_generation()'
        ),
        (
            'transactions_update_user_credits',
            'public.transactions',
            'public.update_user_credits()',
            'create trigger transactions_update_user_credits after insert on public.transactions'
            ' referencing new table as entries for each statement execute function public.update_user_credits()'
        )
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
