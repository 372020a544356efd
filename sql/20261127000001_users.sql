-- migrate:up

-- Accounts: one row for each row of auth.users, with its balance of credits.

create schema if not exists billing;

comment on schema billing is
    'Facts about payments, parked events, and the functions that settle them. Never exposed through an API.';

revoke all on schema billing from public, anon, authenticated, service_role;

grant usage on schema billing to service_role;


create table public.users (
    id uuid
        constraint users_pkey primary key
        constraint users_id_fkey references auth.users (id) on delete cascade,
    email text,
    credits_balance bigint not null default 0
        -- The integers that every JSON client reads exactly: up to 2^53 - 1.
        constraint users_credits_balance_range check (credits_balance between -9007199254740991 and 9007199254740991),
    created_at timestamptz not null default now()
);

comment on table public.users is
    'An account and its credits, one row for each row of auth.users.';

comment on column public.users.credits_balance is
    'Credits: always sum(transactions.amount). Below 0 after a refund of credits that were spent. Only update_user_credits() writes it.';

-- A hash: an address may be longer than a B-tree's entries. Supabase Auth stores addresses in lower case, others may not.
create index users_email_idx on public.users using hash (lower(email));

revoke all on public.users from public, anon, authenticated, service_role;

grant select on public.users to authenticated;

grant select, insert (id, email), update (email) on public.users to service_role;

alter table public.users enable row level security;

create policy users_select_own on public.users
    for select
    to authenticated
    using ((select auth.uid()) = id);


create function billing.guard_credits_balance() returns trigger
    language plpgsql
    set search_path = ''
as $$
declare
    v_callers pg_catalog.text;
begin
    -- The depth alone is no proof: a trigger of any table has it. The context names the callers by their signatures;
    -- the words around a signature are in the server's language.
    get diagnostics v_callers = pg_context;
    if pg_catalog.pg_trigger_depth() < 2 or pg_catalog.strpos(v_callers, 'public.update_user_credits()') = 0 then
        raise exception 'credits_balance changes through public.transactions alone'
            using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;

comment on function billing.guard_credits_balance() is
    'Rejects every change of credits_balance that update_user_credits() does not make, also by the owner. An owner can still pass it with a trigger of the same name.';

revoke all on function billing.guard_credits_balance() from public, anon, authenticated, service_role;

create trigger users_insert_without_credits
    before insert on public.users
    for each row
    when (new.credits_balance <> 0)
    execute function billing.guard_credits_balance();

create trigger users_update_without_credits
    before update on public.users
    for each row
    when (new.credits_balance is distinct from old.credits_balance)
    execute function billing.guard_credits_balance();


-- security definer: Supabase Auth changes auth.users with a role of its own.
create function billing.copy_account() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        -- An earlier trigger of the application may have inserted the row.
        insert into public.users (id, email)
        values (new.id, new.email)
        on conflict (id) do update
        set email = excluded.email;
    else
        update public.users
        set email = new.email
        where id = new.id;
    end if;
    return null;
exception
    -- A sign-up is worth more than its row here, which copy_accounts() adds later.
    when others then
        raise warning 'account % was not copied to public.users: %', new.id, sqlerrm
            using hint = 'Run webhook doctor.';
        return null;
end
$$;

comment on function billing.copy_account() is
    'Creates the row in public.users for a new account, and copies a changed email address. An error is a warning: it never prevents a sign-up.';

revoke all on function billing.copy_account() from public, anon, authenticated, service_role;

-- Triggers fire in the order of their names. The row exists when the triggers of most applications fire.
create trigger billing_account_created
    after insert on auth.users
    for each row
    execute function billing.copy_account();

create trigger billing_email_changed
    after update of email on auth.users
    for each row
    when (new.email is distinct from old.email)
    execute function billing.copy_account();


-- plpgsql: the table of erased users comes in a later migration.
create function billing.copy_accounts() returns bigint
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_added bigint;
    v_corrected bigint;
begin
    insert into public.users (id, email)
    select
        id,
        email
    from auth.users as accounts
    where
        not exists (select from public.users where users.id = accounts.id)
        -- The account of an erased user may exist for some time.
        and not exists (select from billing.erased_users where user_hash = sha256(accounts.id::text::bytea))
    on conflict (id) do nothing;
    get diagnostics v_added = row_count;

    -- Every writer locks users in this order.
    perform 1
    from public.users
    join auth.users as accounts using (id)
    where users.email is distinct from accounts.email
    order by users.id
    for no key update of users;

    update public.users
    set email = accounts.email
    from auth.users as accounts
    where users.id = accounts.id and users.email is distinct from accounts.email;
    get diagnostics v_corrected = row_count;
    return v_added + v_corrected;
end
$$;

comment on function billing.copy_accounts() is
    'Adds the missing rows of public.users, corrects its email addresses, and returns the number of both. Run by the owner, and by each webhook migrate.';

revoke all on function billing.copy_accounts() from public, anon, authenticated, service_role;


-- security definer: service_role may not read auth.users. It gets two numbers and no account.
create function billing.count_uncopied_accounts(out missing bigint, out outdated bigint)
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select
        count(*) filter (where users.id is null),
        count(*) filter (where users.id is not null)
    into missing, outdated
    from auth.users as accounts
    left join public.users using (id)
    where
        case
            when users.id is not null then users.email is distinct from accounts.email
            else not exists (select from billing.erased_users where user_hash = sha256(accounts.id::text::bytea))
        end;
end
$$;

comment on function billing.count_uncopied_accounts() is
    'Returns the number of accounts without a row in public.users, and of those with another email address there.';

revoke all on function billing.count_uncopied_accounts() from public, anon, authenticated, service_role;

grant execute on function billing.count_uncopied_accounts() to service_role;

-- Accounts that exist already.
insert into public.users (id, email)
select
    id,
    email
from auth.users
on conflict (id) do nothing;

-- migrate:down
