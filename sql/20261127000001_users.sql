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

revoke all on public.users from public, anon, authenticated, service_role;

grant select on public.users to authenticated;

grant select, insert (id, email), update (email) on public.users to service_role;

alter table public.users enable row level security;

create policy users_select_own on public.users
    for select
    to authenticated
    using ((select auth.uid()) = id);


create function public.guard_credits_balance() returns trigger
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

comment on function public.guard_credits_balance() is
    'Rejects every change of credits_balance that update_user_credits() does not make, also by the owner. An owner can still pass it with a trigger of the same name.';

revoke all on function public.guard_credits_balance() from public, anon, authenticated, service_role;

create trigger users_insert_without_credits
    before insert on public.users
    for each row
    when (new.credits_balance <> 0)
    execute function public.guard_credits_balance();

create trigger users_update_without_credits
    before update on public.users
    for each row
    when (new.credits_balance is distinct from old.credits_balance)
    execute function public.guard_credits_balance();


-- security definer: Supabase Auth inserts into auth.users with a role of its own.
create function public.handle_new_user() returns trigger
    language plpgsql
    security definer
    set search_path = ''
as $$
begin
    insert into public.users (id, email)
    values (new.id, new.email)
    on conflict (id) do nothing;
    return new;
end
$$;

comment on function public.handle_new_user() is
    'Creates the row in public.users for a new account.';

revoke all on function public.handle_new_user() from public, anon, authenticated, service_role;

create trigger on_auth_user_created
    after insert on auth.users
    for each row
    execute function public.handle_new_user();

-- Accounts that exist already.
insert into public.users (id, email)
select
    id,
    email
from auth.users
on conflict (id) do nothing;

-- migrate:down
