-- The objects of a subscription starter that clash with this schema: a table public.users, filled at each sign-up.

create table users (
    id uuid references auth.users not null primary key,
    first_name text,
    last_name text
);

alter table users enable row level security;

create policy "Can view own user data." on users for select using (auth.uid() = id);

create policy "Can update own user data." on users for update using (auth.uid() = id);

create function public.handle_new_user() returns trigger
as $$
begin
    insert into public.users (id)
    values (new.id);
    return new;
end;
$$
language plpgsql security definer;

create trigger on_auth_user_created
    after insert on auth.users
    for each row execute procedure public.handle_new_user();

create table customers (
    id uuid references auth.users not null primary key,
    stripe_customer_id text
);

create type subscription_status as enum ('trialing', 'active', 'canceled', 'unpaid');

create table subscriptions (
    id text primary key,
    user_id uuid references public.users not null,
    status subscription_status
);
