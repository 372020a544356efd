-- migrate:up

-- Whoever owns the schema may put update_user_credits() on tables of their own: their rows are no ledger's.

set local lock_timeout = '3s';


-- security definer: nobody who may insert here may write credits_balance.
create or replace function public.update_user_credits() returns trigger
    language plpgsql
    security definer
    set search_path = ''
as $$
begin
    if tg_relid <> 'public.transactions'::pg_catalog.regclass then
        raise exception 'update_user_credits() is the trigger of public.transactions alone'
            using errcode = 'insufficient_privilege';
    end if;

    -- One order for everybody, and not "for update": the foreign key's own share lock would deadlock with it.
    perform 1
    from public.users
    where id in (select user_id from entries)
    order by id
    for no key update;

    update public.users
    set credits_balance = users.credits_balance + added.amount
    from (
        select
            user_id,
            sum(amount) as amount
        from entries
        group by user_id
    ) as added
    where users.id = added.user_id;
    return null;
end
$$;

comment on function public.guard_credits_balance() is
    'Refuses every change of credits_balance that update_user_credits() does not make. The owner''s too, but for an owner who makes a trigger that poses as that one.';


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261125000002';

-- migrate:down
