-- migrate:up

-- What Stripe's events say, merged so that their order is forgotten, and the events that wait for an operator.

create table billing.sales (
    payment_id text not null,
    version smallint not null
        constraint sales_version_known check (version between 0 and 3),
    user_id uuid,
    credits bigint
        constraint sales_credits_range check (credits between 1 and 1000000000),
    money_amount bigint
        constraint sales_money_amount_not_negative check (money_amount >= 0),
    currency text,
    paid boolean not null,
    customer_id text,
    erased_at timestamptz,
    recorded_at timestamptz not null default now(),
    constraint sales_pkey primary key (payment_id, version),
    constraint sales_erased_empty check (erased_at is null or num_nonnulls(user_id, credits, money_amount, currency, customer_id) = 0)
);

comment on table billing.sales is
    'What each kind of source says about a sale; every column from the highest version that names it.';

comment on column billing.sales.payment_id is
    'pi_…, cs_… (nothing to pay) or in_….';

comment on column billing.sales.version is
    'Closeness to the money: 1 Checkout Session, 2 invoice, 3 PaymentIntent; 0 who its customer was found to be.';

comment on column billing.sales.user_id is
    'No foreign key: facts are merged before the user rows are locked.';

comment on column billing.sales.money_amount is
    'Minor units of currency that were paid, after tax and discount.';

comment on column billing.sales.customer_id is
    'The Stripe customer, where the source names no user.';

comment on column billing.sales.erased_at is
    'A tombstone of billing.erase_user(): the payment is known, nothing else is, and nothing is stored for it any more.';


create index sales_customer_id_idx on billing.sales (customer_id)
where customer_id is not null;


create table billing.customers (
    customer_id text not null,
    user_id uuid not null,
    constraint customers_pkey primary key (customer_id, user_id)
);

comment on table billing.customers is
    'Who a Stripe customer is, learned from what names both. One that several users claim stands for none.';


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
    'Refunds and disputes. One whose sale is not known waits, for ever if it never was ours.';

comment on column billing.reversals.payment_id is
    'As first told, and so is currency: neither ever changes for a refund or dispute.';

comment on column billing.reversals.version is
    'The highest wins; on a tie the lowest money_amount.';

comment on column billing.reversals.money_amount is
    'Minor units of currency that are gone because of it, now.';

create index reversals_payment_id_idx on billing.reversals (payment_id);


create table billing.payment_links (
    invoice_id text not null,
    payment_id text not null,
    constraint payment_links_pkey primary key (invoice_id, payment_id)
);

comment on table billing.payment_links is
    'Two ids of one sale: an invoice and one of its payments, or the invoice that a Checkout Session made.';

create index payment_links_payment_id_idx on billing.payment_links (payment_id);


create table billing.parked_events (
    event_id text not null
        constraint parked_events_pkey primary key,
    event_type text not null,
    reason text not null
        constraint parked_events_reason_known check (
            reason in (
                'wrong_mode', 'unreadable', 'missing_api_key', 'missing_user', 'ambiguous_customer',
                'missing_credits', 'invalid_credits', 'unknown_user'
            )
        ),
    payment_id text,
    -- json, not jsonb: it keeps every body as it came, \u0000 too.
    payload json,
    parked_at timestamptz not null default now(),
    resolved_at timestamptz,
    constraint parked_events_payload_while_open check ((payload is null) = (resolved_at is not null))
);

comment on table billing.parked_events is
    'Verified events about credits that could not be settled.';

comment on column billing.parked_events.payment_id is
    'The sale it is about, where it says: another event of the sale can bring what this one lacks.';

comment on column billing.parked_events.payload is
    'The event as it came. It holds personal data, so it is dropped once the event is resolved.';

create index parked_events_open_idx on billing.parked_events (payment_id)
where resolved_at is null;


revoke all on billing.sales, billing.customers, billing.reversals, billing.payment_links, billing.parked_events
from public, anon, authenticated, service_role;

grant select, insert, update on billing.sales, billing.reversals, billing.parked_events to service_role;

grant select, insert on billing.customers, billing.payment_links to service_role;

alter table billing.sales enable row level security;

alter table billing.customers enable row level security;

alter table billing.reversals enable row level security;

alter table billing.payment_links enable row level security;

alter table billing.parked_events enable row level security;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000003';

-- migrate:down
