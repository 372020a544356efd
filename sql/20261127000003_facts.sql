-- migrate:up

-- Facts: what Stripe's objects report about sales, refunds and disputes. Facts merge in a way that does not
-- depend on their order: for each key the highest version wins.
--
-- service_role bypasses row-level security. Its policies state in the schema that it sees every row.

create table billing.sales (
    payment_id text not null,
    version smallint not null
        constraint sales_version_known check (version between 1 and 3),
    user_id uuid,
    credits bigint
        constraint sales_credits_range check (credits between 1 and 1000000000),
    money_amount bigint
        constraint sales_money_amount_not_negative check (money_amount >= 0),
    currency text,
    paid boolean not null,
    subscription_id text,
    customer_id text,
    erased_at timestamptz,
    forgotten_at timestamptz,
    recorded_at timestamptz not null default now(),
    constraint sales_pkey primary key (payment_id, version),
    constraint sales_erased_empty check (
        erased_at is null
        or num_nonnulls(user_id, credits, money_amount, currency, subscription_id, customer_id) = 0
    )
);

comment on table billing.sales is
    'What each kind of source reports about a sale. Each column counts from the highest version that names it.';

comment on column billing.sales.payment_id is
    'pi_…, cs_… (nothing to pay) or in_….';

comment on column billing.sales.version is
    'The source, higher if closer to the money: 1 Checkout Session, 2 invoice, 3 PaymentIntent.';

comment on column billing.sales.user_id is
    'No foreign key: facts are merged before the user rows are locked.';

comment on column billing.sales.money_amount is
    'Money paid, in minor units of currency, after tax and discount.';

comment on column billing.sales.subscription_id is
    'The Stripe subscription, if the source names no user. With customer_id it leads to the claims.';

comment on column billing.sales.customer_id is
    'The Stripe customer, if the source names no user.';

comment on column billing.sales.erased_at is
    'Set on a tombstone of billing.erase_user(): the payment is known, and nothing more is stored for it.';

comment on column billing.sales.forgotten_at is
    'When the user was erased to whom the claims led. While they lead to no other user, the sale is not parked.';

create index sales_subscription_id_idx on billing.sales (subscription_id)
where subscription_id is not null;

create index sales_customer_id_idx on billing.sales (customer_id)
where customer_id is not null;

create index sales_unpaid_idx on billing.sales (recorded_at)
where not paid;

create index sales_unpaid_user_id_idx on billing.sales (user_id)
where not paid;

revoke all on billing.sales from public, anon, authenticated, service_role;

grant select, insert, update on billing.sales to service_role;

alter table billing.sales enable row level security;

create policy sales_service_role on billing.sales
    for all
    to service_role
    using (true)
    with check (true);


create table billing.reversals (
    reversal_id text not null
        constraint reversals_pkey primary key,
    version integer not null,
    payment_id text not null,
    money_amount bigint not null
        constraint reversals_money_amount_not_negative check (money_amount >= 0),
    currency text not null,
    event_id text not null,
    recorded_at timestamptz not null default now()
);

comment on table billing.reversals is
    'Refunds and disputes. A reversal whose sale is unknown waits here, for ever if the sale has nothing to do with credits.';

comment on column billing.reversals.reversal_id is
    're_…, dp_… or du_….';

comment on column billing.reversals.version is
    'The highest wins; on a tie the lowest money_amount. Odd for a dispute that is closed.';

comment on column billing.reversals.payment_id is
    'From the first report, as is currency: neither changes for a refund or dispute.';

comment on column billing.reversals.money_amount is
    'Money that is gone because of it now, in minor units of currency.';

create index reversals_payment_id_idx on billing.reversals (payment_id);

revoke all on billing.reversals from public, anon, authenticated, service_role;

grant select, insert, update on billing.reversals to service_role;

alter table billing.reversals enable row level security;

create policy reversals_service_role on billing.reversals
    for all
    to service_role
    using (true)
    with check (true);


create table billing.payment_links (
    invoice_id text not null,
    payment_id text not null,
    constraint payment_links_pkey primary key (invoice_id, payment_id)
);

comment on table billing.payment_links is
    'Two ids of one sale: an invoice and one of its payments, or the invoice that a Checkout Session made.';

create index payment_links_payment_id_idx on billing.payment_links (payment_id);

revoke all on billing.payment_links from public, anon, authenticated, service_role;

grant select, insert on billing.payment_links to service_role;

alter table billing.payment_links enable row level security;

create policy payment_links_service_role on billing.payment_links
    for all
    to service_role
    using (true)
    with check (true);


create table billing.erased_users (
    user_hash bytea not null
        constraint erased_users_pkey primary key,
    erased_at timestamptz not null default now()
);

comment on table billing.erased_users is
    'Accounts that are gone. A claim that arrives afterwards is stored as the tombstone that an earlier one was turned into.';

comment on column billing.erased_users.user_hash is
    'SHA-256 of the user''s id, so that the id itself is gone.';

revoke all on billing.erased_users from public, anon, authenticated, service_role;

grant select on billing.erased_users to service_role;

alter table billing.erased_users enable row level security;

create policy erased_users_service_role on billing.erased_users
    for select
    to service_role
    using (true);


create function billing.is_erased_user(p_user_id uuid) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from billing.erased_users
        where user_hash = sha256(p_user_id::text::bytea)
    );
end
$$;

comment on function billing.is_erased_user(uuid) is
    'Returns whether billing.erase_user() has erased this user.';

revoke all on function billing.is_erased_user(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.is_erased_user(uuid) to service_role;


create function billing.merge_sale(p_fact jsonb) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.sales as known
        (payment_id, version, user_id, credits, money_amount, currency, paid, subscription_id, customer_id)
    values (
        p_fact ->> 'payment_id',
        (p_fact ->> 'version')::smallint,
        (p_fact ->> 'user_id')::uuid,
        coalesce(
            -- An operator can change a price long after the sale, and a redelivered event reads the new one.
            case
                when (p_fact ->> 'priced')::boolean then (
                    select credits
                    from billing.sales
                    where payment_id = p_fact ->> 'payment_id' and version = (p_fact ->> 'version')::smallint
                )
            end,
            (p_fact ->> 'credits')::bigint
        ),
        (p_fact ->> 'money_amount')::bigint,
        p_fact ->> 'currency',
        (p_fact ->> 'paid')::boolean,
        p_fact ->> 'subscription_id',
        p_fact ->> 'customer_id'
    )
    on conflict (payment_id, version) do update
        set
            user_id = least(known.user_id, excluded.user_id),
            credits = greatest(known.credits, excluded.credits),
            money_amount = greatest(known.money_amount, excluded.money_amount),
            currency = least(known.currency, excluded.currency),
            paid = known.paid or excluded.paid,
            subscription_id = least(known.subscription_id, excluded.subscription_id),
            customer_id = least(known.customer_id, excluded.customer_id)
        where
            (
                known.user_id, known.credits, known.money_amount, known.currency, known.paid,
                known.subscription_id, known.customer_id
            )
            is distinct from (
                least(known.user_id, excluded.user_id),
                greatest(known.credits, excluded.credits),
                greatest(known.money_amount, excluded.money_amount),
                least(known.currency, excluded.currency),
                known.paid or excluded.paid,
                least(known.subscription_id, excluded.subscription_id),
                least(known.customer_id, excluded.customer_id)
            );
    return found;
end
$$;

comment on function billing.merge_sale(jsonb) is
    'Merges what one source reports about a sale, under the sale''s lock. If a source reports twice, the values that grant most count; credits read from prices ("priced": true) keep their first value. Returns whether anything changed.';

revoke all on function billing.merge_sale(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.merge_sale(jsonb) to service_role;


create function billing.merge_reversal(p_fact jsonb, p_event_id text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.reversals as known (reversal_id, version, payment_id, money_amount, currency, event_id)
    values (
        p_fact ->> 'id',
        (p_fact ->> 'version')::integer,
        p_fact ->> 'payment_id',
        (p_fact ->> 'money_amount')::bigint,
        p_fact ->> 'currency',
        p_event_id
    )
    on conflict (reversal_id) do update
        set
            version = excluded.version,
            money_amount = excluded.money_amount,
            event_id = excluded.event_id
        where (excluded.version, -excluded.money_amount) > (known.version, -known.money_amount);
    return found;
end
$$;

comment on function billing.merge_reversal(jsonb, text) is
    'Merges a refund or dispute. The highest version counts, on a tie the one that takes least. Returns whether it was new.';

revoke all on function billing.merge_reversal(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.merge_reversal(jsonb, text) to service_role;


create function billing.merge_link(p_fact jsonb) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into billing.payment_links (invoice_id, payment_id)
    values (p_fact ->> 'invoice_id', p_fact ->> 'payment_id')
    on conflict do nothing;
    return found;
end
$$;

comment on function billing.merge_link(jsonb) is
    'Merges the fact that two ids are one sale. Returns whether it was new.';

revoke all on function billing.merge_link(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.merge_link(jsonb) to service_role;

-- migrate:down
