-- migrate:up

-- The ledger: append-only. Its sum per user equals users.credits_balance at every commit.

create type public.transaction_type as enum (
    'PURCHASE', -- credits bought
    'GENERATION', -- credits spent on a generation
    'REFUND' -- credits taken back or given back
);

comment on type public.transaction_type is
    'PURCHASE: credits bought. GENERATION: credits spent on a generation. REFUND: credits taken back (a Stripe refund or dispute) or given back (a failed refund, a won dispute, a failed generation).';


create table public.transactions (
    id uuid not null default gen_random_uuid()
        constraint transactions_pkey primary key,
    user_id uuid not null
        constraint transactions_user_id_fkey references public.users (id) on delete restrict,
    amount bigint not null,
    type public.transaction_type not null,
    -- A constraint and no partial index: "on conflict (stripe_id)" of other applications works without a predicate.
    stripe_id text
        constraint transactions_stripe_id_key unique,
    payment_id text,
    money_amount bigint,
    currency text
        constraint transactions_currency_format check (currency ~ '^[a-z]{3}$'),
    refunds uuid
        constraint transactions_refunds_fkey references public.transactions (id),
    event_id text,
    description text
        constraint transactions_description_length check (char_length(description) between 1 and 200),
    created_at timestamptz not null default now(),
    constraint transactions_amount_sign check (
        case type
            when 'PURCHASE' then amount between 1 and 1000000000
            when 'GENERATION' then amount between -9007199254740991 and -1
            when 'REFUND' then amount <> 0 and amount between -9007199254740991 and 9007199254740991
        end
    ),
    constraint transactions_refunds_gives_back check (refunds is null or (type = 'REFUND' and amount > 0))
);

comment on table public.transactions is
    'The ledger of credits. Rows are never changed or deleted, except by billing.erase_user().';

comment on column public.transactions.amount is
    'Credits, signed: PURCHASE above 0, GENERATION below 0, REFUND either way.';

comment on column public.transactions.stripe_id is
    'Identifies the cause of a row that comes from Stripe: the payment of a purchase, the refund or dispute of a reversal. Null on other rows.';

comment on column public.transactions.payment_id is
    'The purchase that a row from Stripe belongs to.';

comment on column public.transactions.money_amount is
    'Money that the object moved, in minor units of currency: above 0 if paid or returned to us, below 0 if refunded or withdrawn.';

comment on column public.transactions.currency is
    'Three lower-case letters, as Stripe writes it. Set on every row that comes from Stripe.';

comment on column public.transactions.refunds is
    'The GENERATION row whose credits this row gives back.';

comment on column public.transactions.event_id is
    'The Stripe event that caused the row.';

comment on column public.transactions.description is
    'What the user''s history shows for an adjustment by an operator, such as Welcome bonus. Else null.';

create index transactions_user_id_created_at_idx on public.transactions (user_id, created_at);

create index transactions_payment_id_idx on public.transactions (payment_id)
where payment_id is not null;

-- The ledger grows at its end, so each block range has one period. This index costs an insert next to nothing.
create index transactions_created_at_idx on public.transactions using brin (created_at) with (autosummarize = on);

-- Few rows give a generation back. The predicate keeps all others out of the index.
create unique index transactions_refunds_key on public.transactions (refunds)
where refunds is not null;

revoke all on public.transactions from public, anon, authenticated, service_role;

grant select on public.transactions to authenticated;

grant select, insert on public.transactions to service_role;

alter table public.transactions enable row level security;

create policy transactions_select_own on public.transactions
    for select
    to authenticated
    using ((select auth.uid()) = user_id);


-- security definer: no role that inserts here may write credits_balance.
create function public.update_user_credits() returns trigger
    language plpgsql
    security definer
    set search_path = ''
as $$
begin
    -- The schema's owner could attach this function to another table, whose rows belong to no ledger.
    if tg_relid <> 'public.transactions'::pg_catalog.regclass then
        raise exception 'update_user_credits() is the trigger of public.transactions alone'
            using errcode = 'insufficient_privilege';
    end if;

    -- Every writer locks users in this order. Not "for update": the share lock of the foreign key would deadlock with it.
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

comment on function public.update_user_credits() is
    'Adds new ledger rows to the balances of their users, in the transaction that inserts them.';

revoke all on function public.update_user_credits() from public, anon, authenticated, service_role;

create trigger transactions_update_user_credits
    after insert on public.transactions
    referencing new table as entries
    for each statement
    execute function public.update_user_credits();


create function billing.refuse_ledger_change() returns trigger
    language plpgsql
    set search_path = ''
as $$
begin
    raise exception 'public.transactions is append-only: % is refused', lower(tg_op)
        using
            errcode = 'insufficient_privilege',
            hint = 'Add a row that corrects the balance; billing.erase_user(uuid) erases a user.';
end
$$;

comment on function billing.refuse_ledger_change() is
    'Rejects every update, delete and truncate of the ledger, also by its owner.';

revoke all on function billing.refuse_ledger_change() from public, anon, authenticated, service_role;

create trigger transactions_append_only
    before update or delete or truncate on public.transactions
    for each statement
    execute function billing.refuse_ledger_change();

-- migrate:down
