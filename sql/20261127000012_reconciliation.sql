-- migrate:up

-- Reconciliation: objects fetched from Stripe are recorded as the facts that their events would have reported.

create table billing.reconciliations (
    id bigint generated always as identity
        constraint reconciliations_pkey primary key,
    since timestamptz not null,
    until timestamptz not null,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    covered_until timestamptz,
    constraint reconciliations_window check (since < until),
    constraint reconciliations_finished_covers check ((finished_at is null) = (covered_until is null))
);

comment on table billing.reconciliations is
    'Runs of webhook reconcile, apart from dry runs.';

comment on column billing.reconciliations.since is
    'The run looks at what happened from here to until.';

comment on column billing.reconciliations.finished_at is
    'Null while the run is in progress, and for ever if it failed.';

comment on column billing.reconciliations.covered_until is
    'Up to here the finished runs leave no gap. The next run begins here by default.';

revoke all on billing.reconciliations from public, anon, authenticated, service_role;

grant select, insert, update (finished_at, covered_until) on billing.reconciliations to service_role;

alter table billing.reconciliations enable row level security;

create policy reconciliations_service_role on billing.reconciliations
    for all
    to service_role
    using (true)
    with check (true);


create function billing.covered_until() returns timestamptz
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select max(covered_until)
    from billing.reconciliations
$$;

comment on function billing.covered_until() is
    'Returns the time up to which finished runs have looked without a gap, null before the first.';

revoke all on function billing.covered_until() from public, anon, authenticated, service_role;

grant execute on function billing.covered_until() to service_role;


create function billing.begin_reconciliation(p_since timestamptz, p_until timestamptz) returns bigint
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    insert into billing.reconciliations (since, until)
    values (p_since, p_until)
    returning id
$$;

comment on function billing.begin_reconciliation(timestamptz, timestamptz) is
    'Records that a run begins. Returns its id.';

revoke all on function billing.begin_reconciliation(timestamptz, timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.begin_reconciliation(timestamptz, timestamptz) to service_role;


create function billing.finish_reconciliation(p_id bigint) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.reconciliations
    set
        finished_at = now(),
        covered_until = case
            when since <= coalesce(billing.covered_until(), since) then greatest(until, billing.covered_until())
            else billing.covered_until()
        end
    where id = p_id and finished_at is null
$$;

comment on function billing.finish_reconciliation(bigint) is
    'Records that a run has looked at its whole window. A run that leaves a gap after the earlier ones does not extend covered_until.';

revoke all on function billing.finish_reconciliation(bigint) from public, anon, authenticated, service_role;

grant execute on function billing.finish_reconciliation(bigint) to service_role;


create function billing.knows_sale(p_facts jsonb) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from billing.sales
        where payment_id = any (billing.linked_payments(billing.ids_in(p_facts)))
    );
end
$$;

comment on function billing.knows_sale(jsonb) is
    'Returns whether a sale that the facts are about is known, paid or not.';

revoke all on function billing.knows_sale(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.knows_sale(jsonb) to service_role;


-- Facts only ever grow, so this needs no lock. Credits read from prices keep their first value, see merge_sale(): another
-- number is no news.
create function billing.is_recorded(p_fact jsonb) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case p_fact ->> 'kind'
        when 'sale' then exists (
            select from billing.sales
            where
                payment_id = p_fact ->> 'payment_id'
                and version = (p_fact ->> 'version')::smallint
                and user_id = (p_fact ->> 'user_id')::uuid
                and credits >= case
                    when (p_fact ->> 'priced')::boolean then credits
                    else (p_fact ->> 'credits')::bigint
                end
                and money_amount = (p_fact ->> 'money_amount')::bigint
                and currency = p_fact ->> 'currency'
                and paid >= (p_fact ->> 'paid')::boolean
        )
        when 'reversal' then exists (
            select from billing.reversals
            where
                reversal_id = p_fact ->> 'id'
                and (version, -money_amount) >= ((p_fact ->> 'version')::integer, -(p_fact ->> 'money_amount')::bigint)
        )
        when 'link' then exists (
            select from billing.payment_links
            where invoice_id = p_fact ->> 'invoice_id' and payment_id = p_fact ->> 'payment_id'
        )
        when 'claim' then exists (
            select from billing.claims
            where
                subject_id = coalesce(p_fact ->> 'subscription_id', p_fact ->> 'customer_id')
                and user_id in ((p_fact ->> 'user_id')::uuid, billing.pseudonym_of((p_fact ->> 'user_id')::uuid))
                and level = (p_fact ->> 'level')::smallint
                and coalesce(created >= to_timestamp((p_fact ->> 'created')::bigint), p_fact ->> 'created' is null)
        )
        else false
    end;
end
$$;

comment on function billing.is_recorded(jsonb) is
    'Returns whether a fact is recorded completely, so that its sale was settled with it.';

revoke all on function billing.is_recorded(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.is_recorded(jsonb) to service_role;


-- p_deliveries is as in record(), but event_id is the object's own id. "only_known": true marks a sale of before the window,
-- which counts only if it is known; an unknown one gets the outcome left_alone.
create function billing.reconcile(p_deliveries jsonb, p_dry_run boolean) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    -- By index, as in record(): a session keeps the plans that it made while the tables were short.
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as $$
declare
    v_counted jsonb;
    v_left_alone jsonb;
    v_results jsonb;
begin
    select
        coalesce(jsonb_agg(delivery order by position) filter (where counts), '[]'),
        coalesce(
            jsonb_agg(jsonb_build_object('outcome', 'left_alone', 'event_id', delivery -> 'event_id', 'credits', 0))
            filter (where not counts),
            '[]'
        )
    into v_counted, v_left_alone
    from (
        select
            delivery,
            position,
            not (delivery ->> 'only_known')::boolean or billing.knows_sale(delivery -> 'facts') as counts
        from jsonb_array_elements(p_deliveries) with ordinality as each (delivery, position)
        where exists (
            select from jsonb_array_elements(delivery -> 'facts') as fact
            where not billing.is_recorded(fact)
        )
    ) as new;

    v_results := billing.record(v_counted);
    v_results := v_left_alone || (
        with counted as (
            select
                delivery,
                result,
                position
            from jsonb_array_elements(v_counted) with ordinality as counted (delivery, position)
            join jsonb_array_elements(v_results) with ordinality as results (result, position) using (position)
        ), entries as (
            -- The rows of this transaction, each for the first delivery that affects its sale.
            select distinct on (entry.id)
                entry.amount,
                counted.position
            from counted
            cross join lateral billing.entries_of(
                billing.affected_payments(billing.ids_in(counted.delivery -> 'facts'))
            ) as entry
            where entry.created_at = now()
            order by
                entry.id,
                counted.position
        ), moved as (
            select
                position,
                sum(amount) as credits
            from entries
            group by position
        )
        select
            coalesce(
                jsonb_agg(
                    result
                    || jsonb_build_object('event_id', delivery -> 'event_id', 'credits', coalesce(moved.credits, 0))
                ),
                '[]'
            )
        from counted
        left join moved using (position)
    );
    if p_dry_run then
        raise exception using errcode = 'CR101';
    end if;
    return v_results;
exception
    when sqlstate 'CR101' then
        return v_results; -- The rollback of the block undoes everything but this variable.
end
$$;

comment on function billing.reconcile(jsonb, boolean) is
    'Records deliveries of objects fetched from Stripe, or with p_dry_run only reports what that would do. Returns a result for each that is new: as record() does, with event_id and the credits moved, or {"outcome": "left_alone", …}.';

revoke all on function billing.reconcile(jsonb, boolean) from public, anon, authenticated, service_role;

grant execute on function billing.reconcile(jsonb, boolean) to service_role;


create function billing.open_objects(p_since timestamptz) returns setof text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select distinct payment_id
    from billing.sales
    where
        not paid
        and recorded_at >= p_since
        and (credits is not null or user_id is null or user_id in (select id from public.users))
        and not exists (
            select from billing.sales as known
            where known.payment_id = sales.payment_id and (known.paid or known.erased_at is not null)
        )
    union all
    -- A closed dispute has an odd version.
    select reversal_id
    from billing.reversals
    where reversal_id ~ '^d[pu]_' and version % 2 = 0
$$;

comment on function billing.open_objects(timestamptz) is
    'Returns what may have changed at Stripe long after its creation: sales recorded since p_since that are not paid yet, and disputes that are open.';

revoke all on function billing.open_objects(timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.open_objects(timestamptz) to service_role;


create function billing.reversals_without_sale(p_since timestamptz) returns setof text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select distinct payment_id
    from billing.reversals
    where
        recorded_at >= p_since
        and money_amount > 0
        and not exists (select from billing.sales where sales.payment_id = reversals.payment_id)
        and not exists (select from billing.payment_links where payment_links.payment_id = reversals.payment_id)
$$;

comment on function billing.reversals_without_sale(timestamptz) is
    'Returns the payments of refunds and disputes recorded since p_since for which neither a sale nor an invoice is known.';

revoke all on function billing.reversals_without_sale(timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.reversals_without_sale(timestamptz) to service_role;

-- migrate:down
