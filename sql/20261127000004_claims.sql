-- migrate:up

-- Claims: which users a subscription or a Stripe customer is for. The payer is not always the receiver, so the user of a
-- sale that names no user is derived from all claims at every settlement. It is never stored with the sale.
--
-- A claim counts if its user exists, or existed and is gone. So an account that is deleted passes nothing on to others.

create table billing.claims (
    subject_id text not null,
    user_id uuid not null,
    level smallint not null
        constraint claims_level_known check (level between -1 and 4),
    customer_id text,
    created timestamptz,
    is_erased boolean not null default false,
    constraint claims_pkey primary key (subject_id, user_id, level),
    constraint claims_customer_of_subscription check (level > 1 or customer_id is null)
);

comment on table billing.claims is
    'The users that Stripe''s objects name for a subscription or a customer. Such a user may not exist yet.';

comment on column billing.claims.subject_id is
    'sub_… at levels 4 to 2, cus_… below.';

comment on column billing.claims.user_id is
    'No foreign key: claims may come before their user. If is_erased, pseudonym_of() the user''s id.';

comment on column billing.claims.level is
    'The highest level with a claim that counts decides. 4 invoice metadata, 3 a subscription session''s metadata.user_id, 2 its client_reference_id, 1 a paid one-time session, 0 a PaymentIntent or one-time invoice, which counts alike. -1 cancels 0: the sale was a gift, and only its session names the payer.';

comment on column billing.claims.customer_id is
    'The Stripe customer of the subscription. The subscription''s users claim it more strongly than a one-time sale does.';

comment on column billing.claims.created is
    'When the newest such invoice was created. At level 4 the newest claim counts.';

comment on column billing.claims.is_erased is
    'Set on a tombstone: the account is gone, and its claim still counts.';

create index claims_user_id_idx on billing.claims (user_id);

create index claims_customer_id_idx on billing.claims (customer_id)
where customer_id is not null;

revoke all on billing.claims from public, anon, authenticated, service_role;

grant select, insert, update on billing.claims to service_role;

alter table billing.claims enable row level security;

create policy claims_service_role on billing.claims
    for all
    to service_role
    using (true)
    with check (true);


create function billing.pseudonym_of(p_user_id uuid) returns uuid
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return encode(substring(sha256(p_user_id::text::bytea) from 1 for 16), 'hex')::uuid;
end
$$;

comment on function billing.pseudonym_of(uuid) is
    'Returns the id that stands for a user whose account is gone: the beginning of a hash, which does not lead back to the user.';

revoke all on function billing.pseudonym_of(uuid) from public, anon, authenticated, service_role;

grant execute on function billing.pseudonym_of(uuid) to service_role;


create function billing.claimants_of(p_subscription_ids text[]) returns uuid[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select distinct user_id
        from (
            select
                user_id,
                rank() over (
                    partition by subject_id
                    order by level desc, case when level = 4 then created end desc nulls last
                ) as position
            from billing.claims
            where
                subject_id = any (p_subscription_ids)
                and (is_erased or (select 1 from public.users where id = claims.user_id) is not null)
        ) as counting
        where position = 1
        order by user_id
    );
end
$$;

comment on function billing.claimants_of(text[]) is
    'Returns the users of subscriptions: for each one the users of its strongest claims. A subscription with several users belongs to none.';

revoke all on function billing.claimants_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.claimants_of(text[]) to service_role;


create function billing.claimants(p_subscription_ids text[], p_customer_ids text[]) returns uuid[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_ids uuid[] := billing.claimants_of(p_subscription_ids);
begin
    if cardinality(v_user_ids) = 0 then
        -- A subscription with two users makes its customer ambiguous, too: either of them may be the one.
        v_user_ids := billing.claimants_of(array(
            select subject_id
            from billing.claims
            where customer_id = any (p_customer_ids)
        ));
    end if;
    if cardinality(v_user_ids) = 0 then
        v_user_ids := array(
            select distinct user_id
            from billing.claims
            where
                subject_id = any (p_customer_ids)
                and level >= 0
                and (is_erased or (select 1 from public.users where id = claims.user_id) is not null)
                and (
                    level > 0
                    or (
                        select gift.level from billing.claims as gift
                        where gift.subject_id = claims.subject_id and gift.user_id = claims.user_id and gift.level = -1
                    ) is null
                )
            order by user_id
        );
    end if;
    return v_user_ids;
end
$$;

comment on function billing.claimants(text[], text[]) is
    'Returns the users of a sale that names no user: those of its subscriptions, else those of its customers by their subscriptions, else by their one-time sales. The sale belongs to the only one; with several it belongs to none.';

revoke all on function billing.claimants(text[], text[]) from public, anon, authenticated, service_role;

grant execute on function billing.claimants(text[], text[]) to service_role;


create function billing.merge_claim(p_fact jsonb) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_id constant uuid := p_fact ->> 'user_id';
    v_exists constant boolean := exists (select from public.users where id = v_user_id);
    v_is_erased constant boolean := not v_exists
        and billing.is_erased_user(v_user_id);
    v_subscription_ids constant text[] := array_remove(array[p_fact ->> 'subscription_id'], null);
    v_customer_ids constant text[] := array_remove(array[p_fact ->> 'customer_id'], null) || array(
        select customer_id
        from billing.claims
        where subject_id = any (v_subscription_ids) and customer_id is not null
    );
    v_of_subscription constant uuid[] := billing.claimants_of(v_subscription_ids);
    v_of_customer constant uuid[] := billing.claimants('{}', v_customer_ids);
    v_payment_ids text[] := '{}';
begin
    insert into billing.claims as known (subject_id, user_id, level, customer_id, created, is_erased)
    values (
        coalesce(p_fact ->> 'subscription_id', p_fact ->> 'customer_id'),
        case when v_is_erased then billing.pseudonym_of(v_user_id) else v_user_id end,
        (p_fact ->> 'level')::smallint,
        case when p_fact ->> 'subscription_id' is not null then p_fact ->> 'customer_id' end,
        to_timestamp((p_fact ->> 'created')::bigint),
        v_is_erased
    )
    on conflict (subject_id, user_id, level) do update
        set
            customer_id = least(known.customer_id, excluded.customer_id),
            created = greatest(known.created, excluded.created)
        where
            (known.customer_id, known.created)
            is distinct from (least(known.customer_id, excluded.customer_id), greatest(known.created, excluded.created));
    if not found then
        return p_fact || '{"outcome": "duplicate", "settles": []}';
    end if;
    if billing.is_other_owner(v_of_subscription, billing.claimants_of(v_subscription_ids)) then
        v_payment_ids := array(
            select payment_id
            from billing.sales
            where subscription_id = any (v_subscription_ids)
        );
    end if;
    if billing.is_other_owner(v_of_customer, billing.claimants('{}', v_customer_ids)) then
        v_payment_ids := v_payment_ids || array(
            select payment_id
            from billing.sales
            where customer_id = any (v_customer_ids)
        );
    end if;
    return p_fact || jsonb_build_object(
        'outcome', case when v_exists or v_is_erased then 'recorded' else 'no_payment' end,
        'settles', v_payment_ids
    );
end
$$;

comment on function billing.merge_claim(jsonb) is
    'Merges a claim, under the locks of its subscription and customer. Returns it with "outcome" (recorded, duplicate, or no_payment: its user does not exist yet) and "settles", the payments whose user may have changed.';

revoke all on function billing.merge_claim(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.merge_claim(jsonb) to service_role;


create function billing.is_other_owner(p_before uuid[], p_after uuid[]) returns boolean
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return p_before <> p_after and least(cardinality(p_before), cardinality(p_after)) < 2;
end
$$;

comment on function billing.is_other_owner(uuid[], uuid[]) is
    'Returns whether the owner changes: several users own as little before as after.';

revoke all on function billing.is_other_owner(uuid[], uuid[]) from public, anon, authenticated, service_role;

grant execute on function billing.is_other_owner(uuid[], uuid[]) to service_role;


create function billing.merge_claims(p_deliveries jsonb, p_new integer[]) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_claim record;
begin
    for v_claim in
        select
            fact.value,
            array[delivery.position - 1, fact.position - 1]::text[] as position
        from jsonb_array_elements(p_deliveries) with ordinality as delivery (value, position)
        cross join lateral jsonb_array_elements(delivery.value -> 'facts') with ordinality as fact (value, position)
        where
            fact.value ->> 'kind' = 'claim'
            and delivery.position <> all (p_new)
    loop
        p_deliveries := jsonb_set(
            p_deliveries,
            array[v_claim.position[1], 'facts', v_claim.position[2]],
            billing.merge_claim(v_claim.value)
        );
    end loop;
    return p_deliveries;
end
$$;

comment on function billing.merge_claims(jsonb, integer[]) is
    'Merges the claims of deliveries, apart from those at the positions p_new, from 1. Returns the deliveries, with each claim as merge_claim() returns it.';

revoke all on function billing.merge_claims(jsonb, integer[]) from public, anon, authenticated, service_role;

grant execute on function billing.merge_claims(jsonb, integer[]) to service_role;


create function billing.record_claim(p_claim jsonb, p_event_id text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- The claim of a new payment is merged here, if its user turned out not to exist.
    v_claim constant jsonb := case when p_claim ? 'outcome' then p_claim else billing.merge_claim(p_claim) end;
begin
    perform billing.settle_again(array(select jsonb_array_elements_text(v_claim -> 'settles')), p_event_id);
    return v_claim ->> 'outcome';
end
$$;

comment on function billing.record_claim(jsonb, text) is
    'Settles the sales whose user a claim may have changed. Returns the claim''s outcome, as merge_claim() does.';

revoke all on function billing.record_claim(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.record_claim(jsonb, text) to service_role;

-- migrate:down
