-- migrate:up

-- Settling: the ledger of a sale is topped up to what the facts say, never by what an event adds.
--
-- record() is called once a delivery (or a batch of them). It locks the sales, then the users, then merges each
-- fact and settles its sale. Everything runs as its caller, service_role. pg_temp comes last in the search paths, so that
-- no temporary type of a pooled session stands in for a real one.


-- The ids that are one sale with any of the given ones, those included.
create function billing.linked_payments(p_payment_ids text[]) returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Most sales have one id: they are spared the search.
    if not exists (
        select from billing.payment_links
        where invoice_id = any (p_payment_ids) or payment_id = any (p_payment_ids)
    ) then
        return array_remove(p_payment_ids, null);
    end if;
    return (
        with recursive linked (id) as (
            select unnest(p_payment_ids)
            union
            select neighbours.id
            from linked
            cross join lateral (
                select payment_id as id
                from billing.payment_links
                where invoice_id = linked.id
                union all
                select invoice_id
                from billing.payment_links
                where payment_id = linked.id
            ) as neighbours
        )
        select array_agg(id)
        from linked
    );
end
$$;


-- The given ids, those of sales that wait to learn who one of them, a Stripe customer, is, and all that are one sale with
-- these.
create function billing.concerned_payments(p_ids text[]) returns text[]
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select billing.linked_payments(p_ids || array(
        select payment_id
        from billing.sales
        where customer_id = any (p_ids)
    ))
$$;


-- Locks every id of the sales that the given ids belong to, and Stripe customers among them, until the transaction ends.
--
-- Two events of one sale may name different ids, so the whole linked set is locked, and the links are read again
-- under the lock. Had they grown, the locks are given back (the block's rollback does it) before the larger set is
-- taken: locks are only ever taken in one order.
create function billing.lock_payments(p_payment_ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked text[];
begin
    loop
        v_locked := coalesce(billing.concerned_payments(p_payment_ids), '{}');
        begin
            perform pg_advisory_xact_lock(locks.key)
            from (
                select distinct hashtextextended(id, 4242) as key
                from unnest(v_locked) as id
                order by key
            ) as locks;
            if coalesce(billing.concerned_payments(p_payment_ids) <@ v_locked, true) then
                return;
            end if;
            raise exception using errcode = 'CR100';
        exception
            when sqlstate 'CR100' then
                null; -- A link was committed meanwhile: once more, with it.
        end;
    end loop;
end
$$;


-- A sale as all its facts together tell it: credits, and minor units of currency.
create type billing.merged_sale as (
    payment_id text,
    user_id uuid,
    credits bigint,
    money_amount bigint,
    currency text,
    paid boolean,
    erased boolean
);


-- The sale that linked payments are: the payment that names both a user and credits, then one that is paid, then the
-- highest version, then the smallest id counts, and of it each column from the highest version that names it. Null where
-- nothing is known.
create function billing.sale_of(p_payment_ids text[]) returns billing.merged_sale
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select
        merged.payment_id,
        merged.user_id,
        merged.credits,
        merged.money_amount,
        merged.currency,
        merged.paid,
        bool_or(merged.erased) over ()
    from (
        select
            payment_id,
            max(version) as version,
            (array_agg(user_id order by version desc) filter (where user_id is not null))[1] as user_id,
            (array_agg(credits order by version desc) filter (where credits is not null))[1] as credits,
            (array_agg(money_amount order by version desc) filter (where money_amount is not null))[1] as money_amount,
            (array_agg(currency order by version desc) filter (where currency is not null))[1] as currency,
            bool_or(paid) as paid,
            bool_or(erased_at is not null) as erased
        from (
            select payment_id, version, user_id, credits, money_amount, currency, paid, erased_at
            from billing.sales
            where payment_id = any (p_payment_ids)
            union all
            -- A purchase that somebody entered by hand is a fact, too, and the weakest.
            select stripe_id, 0, user_id, amount, money_amount, currency, true, null
            from public.transactions
            where stripe_id = any (p_payment_ids) and type = 'PURCHASE' and num_nulls(money_amount, currency) = 0
        ) as facts
        group by payment_id
    ) as merged
    order by
        num_nulls(merged.user_id, merged.credits),
        merged.paid desc,
        merged.version desc,
        merged.payment_id collate "C"
    limit 1
$$;


-- The credits that a sale keeps once p_reversed of its money is gone. Exact: all of the money takes all the credits,
-- and no customer loses more than the reversed share. Where nothing was paid, nothing can be taken.
create function billing.kept_credits(p_credits bigint, p_money_amount bigint, p_reversed numeric) returns bigint
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return case
        when p_money_amount = 0 then p_credits
        else p_credits - div(p_credits * least(p_reversed, p_money_amount), p_money_amount)::bigint
    end;


-- The ledger rows of linked payments, those included that somebody else inserted without payment_id.
create function billing.entries_of(p_payment_ids text[]) returns setof public.transactions
    language sql
    stable
    rows 3
    set search_path = pg_catalog, pg_temp
as $$
    select *
    from public.transactions
    where
        payment_id = any (p_payment_ids)
        or stripe_id = any (p_payment_ids)
        or stripe_id in (
            select reversal_id
            from billing.reversals
            where payment_id = any (p_payment_ids)
        )
$$;


-- The reversals of linked payments that have, or have not, caused a ledger row; money is what each takes from the
-- sale, all of it where the currencies differ.
create function billing.reversals_of(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_booked boolean
) returns table (reversal_id text, money numeric, money_amount bigint, currency text, event_id text)
    language sql
    stable
    rows 1
    set search_path = pg_catalog, pg_temp
as $$
    select
        reversal_id,
        case when currency = p_sale.currency then money_amount else p_sale.money_amount end,
        money_amount,
        currency,
        event_id
    from billing.reversals
    where
        payment_id = any (p_payment_ids)
        and money_amount > 0
        and p_booked = exists (select from public.transactions where stripe_id = reversal_id)
    order by reversal_id collate "C"
$$;


-- A stripe_id that no ledger row has yet, for a later row that p_id causes: p_id:p_suffix; then p_id:p_suffix:2 and so
-- on, where one fact causes several rows.
create function billing.next_stripe_id(p_id text, p_suffix text) returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_stripe_id text := p_id || ':' || p_suffix;
    v_count integer := 1;
begin
    while exists (select from public.transactions where stripe_id = v_stripe_id) loop
        v_count := v_count + 1;
        v_stripe_id := p_id || ':' || p_suffix || ':' || v_count;
    end loop;
    return v_stripe_id;
end
$$;


-- Appends a ledger row, and tells whether it did: nothing is written where nothing changes.
create function billing.add_entry(
    p_user_id uuid,
    p_amount bigint,
    p_type public.transaction_type,
    p_stripe_id text,
    p_payment_id text,
    p_money_amount bigint,
    p_currency text,
    p_event_id text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_amount = 0 then
        return false;
    end if;
    insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
    values (p_user_id, p_amount, p_type, p_stripe_id, p_payment_id, p_money_amount, p_currency, p_event_id);
    return true;
end
$$;


-- Brings a purchase that is in the ledger to what its facts say, its waiting reversals apart: any other user's rows
-- to 0, and then this user's to the target. The new rows bear the id of the fact that caused them, and its version;
-- "merge" where the fact told that two purchases are one.
create function billing.correct(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_purchase_id text,
    p_fact jsonb,
    p_event_id text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_cause_id constant text := coalesce(p_fact ->> 'id', p_fact ->> 'payment_id');
    v_is_reversal constant boolean := p_fact ->> 'kind' = 'reversal';
    v_suffix constant text := case
        when v_is_reversal or (p_fact ->> 'kind' = 'sale' and v_cause_id = p_purchase_id) then p_fact ->> 'version'
        else 'merge'
    end;
    v_entry record;
    v_changed boolean := false;
begin
    for v_entry in
        select
            user_id,
            -sum(amount)::bigint as amount,
            -sum(money_amount)::bigint as money_amount,
            currency
        from billing.entries_of(p_payment_ids)
        where user_id <> p_sale.user_id
        group by
            user_id,
            currency
        having sum(amount) <> 0
        order by
            user_id,
            currency
    loop
        v_changed := billing.add_entry(
            v_entry.user_id, v_entry.amount, 'REFUND', billing.next_stripe_id(v_cause_id, v_suffix),
            p_purchase_id, v_entry.money_amount, v_entry.currency, p_event_id
        );
    end loop;

    -- money_amount: what the object has moved beyond what its earlier rows (a sale's: all that no reversal caused) say.
    select
        billing.kept_credits(
            p_sale.credits,
            p_sale.money_amount,
            (select coalesce(sum(money), 0) from billing.reversals_of(p_payment_ids, p_sale, true))
        ) - coalesce(sum(amount) filter (where user_id = p_sale.user_id), 0)::bigint as amount,
        case
            when v_is_reversal then - (p_fact ->> 'money_amount')::bigint
            else p_sale.money_amount
        end - coalesce(
            sum(money_amount) filter (
                where currency = p_sale.currency and case
                    when v_is_reversal then split_part(stripe_id, ':', 1) = v_cause_id
                    else not exists (select from billing.reversals where reversal_id = split_part(stripe_id, ':', 1))
                end
            ),
            0
        )::bigint as money_amount
    into v_entry
    from billing.entries_of(p_payment_ids);

    return billing.add_entry(
        p_sale.user_id, v_entry.amount, 'REFUND', billing.next_stripe_id(v_cause_id, v_suffix),
        p_purchase_id, v_entry.money_amount, case when v_is_reversal then p_fact ->> 'currency' else p_sale.currency end,
        p_event_id
    ) or v_changed;
end
$$;


-- Brings the ledger of one sale (p_payment_ids: all ids of it) to what its facts say, and returns whether that took a
-- new row. p_fact has just been merged; a row that it causes bears its id.
create function billing.settle(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_fact jsonb,
    p_event_id text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_purchase_id text;
    v_reversal record;
    v_reversed numeric := 0;
    v_changed boolean;
begin
    -- Of any type: erase_user() deletes the PURCHASE of a sale that turned out to be another user's.
    select min(coalesce(payment_id, stripe_id) collate "C")
    into v_purchase_id
    from billing.entries_of(p_payment_ids)
    where payment_id is not null or stripe_id = any (p_payment_ids);

    if not p_sale.paid then
        return false;
    elsif v_purchase_id is not null then
        v_changed := billing.correct(p_payment_ids, p_sale, v_purchase_id, p_fact, p_event_id);
        select coalesce(sum(money), 0)
        into v_reversed
        from billing.reversals_of(p_payment_ids, p_sale, true);
    else
        v_purchase_id := p_sale.payment_id;
        v_changed := billing.add_entry(
            p_sale.user_id, p_sale.credits, 'PURCHASE', v_purchase_id,
            v_purchase_id, p_sale.money_amount, p_sale.currency, p_event_id
        );
    end if;

    -- Each reversal that has no row yet, this one or one that was here before its sale, gets a row of its own.
    for v_reversal in
        select *
        from billing.reversals_of(p_payment_ids, p_sale, false)
    loop
        v_changed := billing.add_entry(
            p_sale.user_id,
            billing.kept_credits(p_sale.credits, p_sale.money_amount, v_reversed + v_reversal.money)
            - billing.kept_credits(p_sale.credits, p_sale.money_amount, v_reversed),
            'REFUND', v_reversal.reversal_id,
            v_purchase_id, -v_reversal.money_amount, v_reversal.currency, v_reversal.event_id
        ) or v_changed;
        v_reversed := v_reversed + v_reversal.money;
    end loop;
    return v_changed;
end
$$;


-- Why a sale cannot be settled, null where it can: the first reason that applies, as billing.parked_events names them.
create function billing.unsettled_reason(p_sale billing.merged_sale) returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    return case
        when p_sale.user_id is null then 'missing_user'
        when p_sale.credits is null then 'missing_credits'
        when not exists (select from public.users where id = p_sale.user_id) then 'unknown_user'
    end;


-- Merges what one source says about a sale. Where the same source speaks twice, what grants most counts.
create function billing.merge_sale(p_fact jsonb) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    insert into billing.sales as known (payment_id, version, user_id, credits, money_amount, currency, paid, customer_id)
    values (
        p_fact ->> 'payment_id',
        (p_fact ->> 'version')::smallint,
        (p_fact ->> 'user_id')::uuid,
        (p_fact ->> 'credits')::bigint,
        (p_fact ->> 'money_amount')::bigint,
        p_fact ->> 'currency',
        (p_fact ->> 'paid')::boolean,
        p_fact ->> 'customer_id'
    )
    on conflict (payment_id, version) do update
        set
            user_id = least(known.user_id, excluded.user_id),
            credits = greatest(known.credits, excluded.credits),
            money_amount = greatest(known.money_amount, excluded.money_amount),
            currency = least(known.currency, excluded.currency),
            paid = known.paid or excluded.paid,
            customer_id = least(known.customer_id, excluded.customer_id)
        where
            (known.user_id, known.credits, known.money_amount, known.currency, known.paid, known.customer_id)
            is distinct from (
                least(known.user_id, excluded.user_id),
                greatest(known.credits, excluded.credits),
                greatest(known.money_amount, excluded.money_amount),
                least(known.currency, excluded.currency),
                known.paid or excluded.paid,
                least(known.customer_id, excluded.customer_id)
            )
$$;


-- Merges what a refund or dispute says, and tells whether it is news: the highest version counts, on a tie the one that
-- takes least.
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


-- Merges the news that two ids are one sale, and tells whether it is news.
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


-- The ids that a fact names and that its recording has to lock: payments, and a Stripe customer.
create function billing.ids_of(p_fact jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array_remove(array[p_fact ->> 'payment_id', p_fact ->> 'invoice_id', p_fact ->> 'customer_id'], null);


-- Where a sale names no user and its Stripe customer is one, writes that down as the lowest version of the sale: it
-- stays, whoever the customer turns out to be later. Returns how many users the customer is.
create function billing.find_user(p_payment_ids text[]) returns integer
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_user_ids constant uuid[] := array(
        select distinct user_id
        from billing.customers
        where customer_id in (
            select customer_id
            from billing.sales
            where payment_id = any (p_payment_ids)
        )
    );
begin
    if cardinality(v_user_ids) = 1 then
        insert into billing.sales (payment_id, version, user_id, paid)
        select
            payment_id,
            0,
            v_user_ids[1],
            false
        from billing.sales
        where payment_id = any (p_payment_ids) and customer_id is not null
        on conflict (payment_id, version) do nothing;
    end if;
    return cardinality(v_user_ids);
end
$$;


-- Settles what linked payments are, if that is possible. p_fact has just been merged. Returns why it is not, else null,
-- and whether that took a new row. Once the sale is paid, no event of it waits any more.
create function billing.settle_sale(
    p_payment_ids text[],
    p_fact jsonb,
    p_event_id text,
    out reason text,
    out is_new boolean
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_sale billing.merged_sale := billing.sale_of(p_payment_ids);
begin
    is_new := false;
    reason := billing.unsettled_reason(v_sale);
    if reason = 'missing_user' then
        case billing.find_user(p_payment_ids)
            when 0 then
                return;
            when 1 then
                v_sale := billing.sale_of(p_payment_ids);
                reason := billing.unsettled_reason(v_sale);
            else
                reason := 'ambiguous_customer';
        end case;
    end if;
    if reason is not null then
        return;
    end if;
    is_new := billing.settle(p_payment_ids, v_sale, p_fact, p_event_id);
    if not v_sale.paid then
        return; -- An event that waits may be the only one to say that it is.
    end if;
    update billing.parked_events
    set
        resolved_at = now(),
        payload = null
    where
        payment_id = any (p_payment_ids)
        and parked_events.reason <> 'missing_api_key'
        and resolved_at is null;
end
$$;


-- Merges who a Stripe customer is, and settles the sales that waited for it. Returns whether it is news; of a user who was
-- erased it is not.
create function billing.learn_customer(p_fact jsonb, p_event_id text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_id text;
begin
    insert into billing.customers (customer_id, user_id)
    select
        p_fact ->> 'customer_id',
        id
    from public.users
    where id = (p_fact ->> 'user_id')::uuid
    on conflict do nothing;
    if not found then
        return false;
    end if;
    for v_payment_id in
        select payment_id
        from billing.sales
        where customer_id = p_fact ->> 'customer_id'
        order by payment_id collate "C"
    loop
        perform billing.settle_sale(
            billing.linked_payments(array[v_payment_id]),
            jsonb_build_object('kind', 'sale', 'payment_id', v_payment_id, 'version', 0),
            p_event_id
        );
    end loop;
    return true;
end
$$;


-- Whether the refunds that are known of a sale fall short of what its charge says is refunded. A dispute is no refund.
create function billing.lacks_refunds(p_payment_ids text[], p_fact jsonb) returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    return exists (select from billing.sales where payment_id = any (p_payment_ids))
        and (p_fact ->> 'money_amount')::numeric > (
            select coalesce(sum(money_amount), 0)
            from billing.reversals
            where payment_id = any (p_payment_ids) and reversal_id !~ '^d[pu]_'
        );


-- The ids that several facts name.
create function billing.ids_in(p_facts jsonb) returns text[]
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return array(
        select unnest(billing.ids_of(fact))
        from jsonb_array_elements(p_facts) as fact
    );


-- Merges one fact and settles its sale. Returns 'recorded' where something is new, 'duplicate' where nothing is,
-- 'ignored' where it says nothing, else why the sale that the fact is about cannot be settled. Nothing is stored for an
-- erased sale.
create function billing.record_fact(p_fact jsonb, p_event_id text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.linked_payments(billing.ids_of(p_fact));
    v_before constant billing.merged_sale := billing.sale_of(v_payment_ids);
    v_is_sale constant boolean := p_fact ->> 'kind' = 'sale';
    v_is_new boolean;
    v_settled record;
begin
    if v_before.erased then
        if p_fact ->> 'kind' = 'link' then
            perform billing.merge_link(p_fact); -- so that the other id is known to be erased, too
        end if;
        return 'duplicate';
    end if;
    case p_fact ->> 'kind'
        when 'sale' then
            perform billing.merge_sale(p_fact);
        when 'reversal' then
            v_is_new := billing.merge_reversal(p_fact, p_event_id);
        when 'link' then
            v_is_new := billing.merge_link(p_fact);
        when 'customer' then
            v_is_new := billing.learn_customer(p_fact, p_event_id);
            return case when v_is_new then 'recorded' else 'duplicate' end;
        when 'refunded_total' then
            return case when billing.lacks_refunds(v_payment_ids, p_fact) then 'missing_api_key' else 'ignored' end;
    end case;

    v_settled := billing.settle_sale(v_payment_ids, p_fact, p_event_id);
    if
        v_is_sale
        and v_settled.reason is not null
        and (v_settled.reason = 'unknown_user' or num_nonnulls(p_fact ->> 'user_id', p_fact ->> 'credits') > 0)
    then
        -- A payment that names neither user nor credits is none of ours, until its session says so.
        return v_settled.reason;
    end if;
    if v_is_sale then
        v_is_new := v_before is distinct from billing.sale_of(v_payment_ids);
    end if;
    return case when v_is_new or v_settled.is_new then 'recorded' else 'duplicate' end;
end
$$;


-- Locks the rows of all users whose balance the facts could change, in the order that everybody uses.
create function billing.lock_users(p_facts jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.concerned_payments(billing.ids_in(p_facts));
begin
    perform 1
    from public.users
    where id in (
        select (fact ->> 'user_id')::uuid
        from jsonb_array_elements(p_facts) as fact
        union all
        select user_id
        from billing.customers
        where customer_id = any (v_payment_ids)
        union all
        select user_id
        from billing.sales
        where payment_id = any (v_payment_ids)
        union all
        select user_id
        from billing.entries_of(v_payment_ids)
    )
    order by id
    for no key update;
end
$$;


-- Why a delivery with these facts is refused as a whole: one of them names a user that does not exist. Null where none
-- does; a sale that is erased asks for no user.
create function billing.refusal_of(p_facts jsonb) returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
        when fact ->> 'kind' = 'sale' and coalesce(fact ->> 'credits', sale.credits::text) is null then 'missing_credits'
        else 'unknown_user'
    end
    from jsonb_array_elements(p_facts) as fact
    left join billing.sale_of(billing.linked_payments(billing.ids_in(p_facts))) as sale on true
    where
        fact ->> 'user_id' is not null
        and not exists (select from public.users where id = (fact ->> 'user_id')::uuid)
        and not coalesce(sale.erased, false)
    limit 1
$$;


-- Ends the waiting of a parked event, if it waits, and drops its payload.
create function billing.resolve(p_event_id text) returns void
    language sql
    set search_path = pg_catalog, pg_temp
as $$
    update billing.parked_events
    set
        resolved_at = now(),
        payload = null
    where event_id = p_event_id and resolved_at is null
$$;


-- Records one delivery's facts, or none where one of them names an unknown user. See record().
create function billing.record_delivery(p_facts jsonb, p_event_id text) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason text := billing.refusal_of(p_facts);
    v_fact jsonb;
    v_outcome text;
    v_result text := 'duplicate';
begin
    if v_reason is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_reason);
    end if;
    for v_fact in
        select *
        from jsonb_array_elements(p_facts)
    loop
        v_outcome := billing.record_fact(v_fact, p_event_id);
        case v_outcome
            when 'duplicate' then
                null;
            when 'recorded', 'ignored' then
                v_result := v_outcome;
            else
                v_reason := coalesce(v_reason, v_outcome);
        end case;
    end loop;

    if v_reason is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_reason);
    end if;
    perform billing.resolve(p_event_id);
    if v_result = 'ignored' then
        return jsonb_build_object('outcome', v_result, 'reason', 'refunds_known');
    end if;
    return jsonb_build_object('outcome', v_result);
end
$$;


-- Records deliveries, [{"event_id": text, "facts": [fact, …]}, …], and returns one result for each, in their order:
-- {"outcome": "recorded"}, {"outcome": "duplicate"}, or {"outcome": "unsettled", "reason": …}, which the caller parks.
--
-- A fact is one of
--   {"kind": "sale", "payment_id", "version", "user_id", "credits", "money_amount", "currency", "paid", "customer_id"}
--   {"kind": "customer", "customer_id", "user_id"}
--   {"kind": "reversal", "id", "version", "payment_id", "money_amount", "currency"}
--   {"kind": "link", "id", "invoice_id", "payment_id"}
--   {"kind": "refunded_total", "payment_id", "money_amount"}
-- with credits and minor units as integers, and null for what its source does not name.
create function billing.record(p_deliveries jsonb) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_facts constant jsonb := jsonb_path_query_array(p_deliveries, '$[*].facts[*]');
    v_delivery jsonb;
    v_results jsonb := '[]';
begin
    perform billing.lock_payments(billing.ids_in(v_facts));
    perform billing.lock_users(v_facts);
    for v_delivery in
        select *
        from jsonb_array_elements(p_deliveries)
    loop
        v_results := v_results || billing.record_delivery(v_delivery -> 'facts', v_delivery ->> 'event_id');
    end loop;
    return v_results;
end
$$;


-- Stores an event that cannot be settled now; p_payload is its body. Returns whether it waits: not if it was resolved
-- before, nor if its sale was erased or is paid and settled by what others told.
create function billing.park(
    p_event_id text,
    p_event_type text,
    p_reason text,
    p_payment_id text,
    p_payload text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_sale billing.merged_sale;
begin
    if p_payment_id is not null then
        perform billing.lock_payments(array[p_payment_id]);
        v_sale := billing.sale_of(billing.linked_payments(array[p_payment_id]));
        if
            v_sale.erased
            or (p_reason <> 'missing_api_key' and v_sale.paid and billing.unsettled_reason(v_sale) is null)
        then
            perform billing.resolve(p_event_id);
            return false;
        end if;
    end if;
    insert into billing.parked_events as known (event_id, event_type, reason, payment_id, payload)
    values (p_event_id, p_event_type, p_reason, p_payment_id, p_payload::json)
    on conflict (event_id) do update
        set
            reason = excluded.reason,
            payment_id = excluded.payment_id
        where known.resolved_at is null;
    return found;
end
$$;


revoke all on all functions in schema billing from public, anon, authenticated, service_role;

revoke all on type billing.merged_sale from public, anon, authenticated, service_role;

grant execute on all functions in schema billing to service_role;

grant usage on type billing.merged_sale to service_role;


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000004';

-- migrate:down
