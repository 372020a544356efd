-- migrate:up

-- Reconciliation: objects read from Stripe are recorded as the facts that their events would have told.

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
    'Runs of webhook reconcile that changed, or could have changed, something.';

comment on column billing.reconciliations.since is
    'The run looked at what happened from here to until.';

comment on column billing.reconciliations.covered_until is
    'The finished runs up to this one leave no gap before it: where the next run begins by default.';

revoke all on billing.reconciliations from public, anon, authenticated, service_role;

grant select, insert, update (finished_at, covered_until) on billing.reconciliations to service_role;

alter table billing.reconciliations enable row level security;


-- Where a run begins that is not told: until where the finished ones have looked without a gap. Null before the first.
create function billing.covered_until() returns timestamptz
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select max(covered_until)
    from billing.reconciliations
$$;

revoke all on function billing.covered_until() from public, anon, authenticated, service_role;

grant execute on function billing.covered_until() to service_role;


-- Notes that a run begins, and returns its id.
create function billing.begin_reconciliation(p_since timestamptz, p_until timestamptz) returns bigint
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    insert into billing.reconciliations (since, until)
    values (p_since, p_until)
    returning id
$$;

revoke all on function billing.begin_reconciliation(timestamptz, timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.begin_reconciliation(timestamptz, timestamptz) to service_role;


-- Notes that a run has seen all of its window. A run that leaves a gap after the earlier ones covers nothing more.
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

revoke all on function billing.finish_reconciliation(bigint) from public, anon, authenticated, service_role;

grant execute on function billing.finish_reconciliation(bigint) to service_role;


-- Whether a sale that the facts are about is known, paid or not.
create function billing.knows_sale(p_facts jsonb) returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from billing.sales
        where payment_id = any (billing.linked_payments(billing.ids_in(p_facts)))
    )
$$;

revoke all on function billing.knows_sale(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.knows_sale(jsonb) to service_role;


-- Whether a fact is recorded already, whole: then its sale was settled with it. Facts only ever grow, so that needs no lock.
-- What prices sell was told when the sale was made: another number now is no news, see merge_sale().
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
        when 'customer' then exists (
            select from billing.customers
            where customer_id = p_fact ->> 'customer_id' and user_id = (p_fact ->> 'user_id')::uuid
        )
        else false
    end;
end
$$;

revoke all on function billing.is_recorded(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.is_recorded(jsonb) to service_role;


-- Records what reconciliation found at Stripe: deliveries as record() takes them, whose event_id is the object's own id,
-- and which may say "only_known": true, for a sale of before the window, which counts only where it is known.
--
-- Returns a result for each that says something new: record()'s with the event_id and the credits that it moved, or
-- {"outcome": "left_alone", …} for an unknown sale of before the window. A dry run tells the same and changes nothing.
create function billing.reconcile(p_deliveries jsonb, p_dry_run boolean) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    -- By index, whatever the planner makes of tables that were short when it last looked.
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
as $$
declare
    v_taken jsonb;
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
    into v_taken, v_left_alone
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

    v_results := billing.record(v_taken);
    v_results := v_left_alone || (
        with taken as (
            select
                delivery,
                result,
                position
            from jsonb_array_elements(v_taken) with ordinality as taken (delivery, position)
            join jsonb_array_elements(v_results) with ordinality as told (result, position) using (position)
        ), entries as (
            -- The rows of this transaction, each counted for the first delivery that concerns its sale.
            select distinct on (entry.id)
                entry.amount,
                taken.position
            from taken
            cross join lateral billing.entries_of(
                billing.concerned_payments(billing.ids_in(taken.delivery -> 'facts'))
            ) as entry
            where entry.created_at = now()
            order by
                entry.id,
                taken.position
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
        from taken
        left join moved using (position)
    );
    if p_dry_run then
        raise exception using errcode = 'CR101';
    end if;
    return v_results;
exception
    when sqlstate 'CR101' then
        return v_results; -- The block's rollback has taken everything back but this.
end
$$;

revoke all on function billing.reconcile(jsonb, boolean) from public, anon, authenticated, service_role;

grant execute on function billing.reconcile(jsonb, boolean) to service_role;


-- What may have gone on at Stripe long after its creation: sales noted since p_since that are not paid yet, and disputes
-- that are still open.
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

revoke all on function billing.open_objects(timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.open_objects(timestamptz) to service_role;


-- Payments that refunds and disputes noted since p_since took back, and of which neither a sale nor an invoice is known.
create function billing.strange_payments(p_since timestamptz) returns setof text
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

revoke all on function billing.strange_payments(timestamptz) from public, anon, authenticated, service_role;

grant execute on function billing.strange_payments(timestamptz) to service_role;

-- migrate:down
