-- migrate:up

-- Settling: the ledger of a sale is topped up to what the facts say, never by what an event adds.

-- The credits that a sale keeps once p_reversed of its money is gone. Exact: all of the money takes all the credits,
-- and no customer loses more than the reversed share. Where nothing was paid, nothing can be taken.
create function billing.remaining_credits(p_credits bigint, p_money_amount bigint, p_reversed numeric) returns bigint
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
    return case
        when p_money_amount = 0 then p_credits
        else p_credits - div(p_credits * least(p_reversed, p_money_amount), p_money_amount)::bigint
    end;

comment on function billing.remaining_credits(bigint, bigint, numeric) is
    'Returns the credits that a sale keeps once p_reversed of its money is gone, rounded in the customer''s favour. All of the money takes all the credits; if nothing was paid, nothing is taken.';

revoke all on function billing.remaining_credits(bigint, bigint, numeric) from public, anon, authenticated, service_role;

grant execute on function billing.remaining_credits(bigint, bigint, numeric) to service_role;


-- The ledger rows of linked payments, those included that somebody else inserted without payment_id. By index alone: the
-- planner reads the whole ledger where a condition of "or" holds a subquery that is not an array.
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
        or stripe_id = any (p_payment_ids || array(
            select reversal_id
            from billing.reversals
            where payment_id = any (p_payment_ids)
        ))
$$;

comment on function billing.entries_of(text[]) is
    'Returns the ledger rows of linked payments, also rows that another application inserted without payment_id.';

revoke all on function billing.entries_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.entries_of(text[]) to service_role;


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

comment on function billing.reversals_of(text[], billing.merged_sale, boolean) is
    'Returns the reversals of a sale in the order of booking, those with a ledger row first. remaining_credits is what the sale keeps after a reversal and all before it.';

revoke all on function billing.reversals_of(text[], billing.merged_sale, boolean) from public, anon, authenticated, service_role;

grant execute on function billing.reversals_of(text[], billing.merged_sale, boolean) to service_role;


-- The money of a sale that is gone, by all its refunds and disputes or by all but one: all of the sale's, where the
-- currencies differ.
create function billing.reversed_money(p_payment_ids text[], p_sale billing.merged_sale, p_but text) returns numeric
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(sum(case when currency = p_sale.currency then money_amount else p_sale.money_amount end), 0)
        from billing.reversals
        where
            payment_id = any (p_payment_ids)
            and money_amount > 0
            and reversal_id is distinct from p_but
    );
end
$$;

comment on function billing.reversed_money(text[], billing.merged_sale, text) is
    'Returns the money of a sale that is gone, by all its reversals or by all but one.';

revoke all on function billing.reversed_money(text[], billing.merged_sale, text) from public, anon, authenticated, service_role;

grant execute on function billing.reversed_money(text[], billing.merged_sale, text) to service_role;


-- Whether the ledger rows of a sale come to what its facts say: to the credits that its user keeps, and to 0 for others.
create function billing.is_settled(p_payment_ids text[], p_sale billing.merged_sale) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_target constant bigint := billing.remaining_credits(
        p_sale.credits, p_sale.money_amount, billing.reversed_money(p_payment_ids, p_sale, null)
    );
begin
    return (
        select
            coalesce(sum(amount) filter (where user_id = p_sale.user_id), 0) = v_target
            and coalesce(bool_and(amount = 0) filter (where user_id <> p_sale.user_id), true)
        from (
            select
                user_id,
                sum(amount) as amount
            from billing.entries_of(p_payment_ids)
            group by user_id
        ) as users
    );
end
$$;

comment on function billing.is_settled(text[], billing.merged_sale) is
    'Returns whether the ledger rows of a sale match its facts: its user has the credits that it keeps, other users have none.';

revoke all on function billing.is_settled(text[], billing.merged_sale) from public, anon, authenticated, service_role;

grant execute on function billing.is_settled(text[], billing.merged_sale) to service_role;


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

comment on function billing.next_stripe_id(text, text) is
    'Returns an unused stripe_id for a later row that p_id causes: p_id:p_suffix, then p_id:p_suffix:2 and so on.';

revoke all on function billing.next_stripe_id(text, text) from public, anon, authenticated, service_role;

grant execute on function billing.next_stripe_id(text, text) to service_role;


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

comment on function billing.add_entry(uuid, bigint, public.transaction_type, text, text, bigint, text, text) is
    'Appends a ledger row, unless its amount is 0. Returns whether it did.';

revoke all on function billing.add_entry(uuid, bigint, public.transaction_type, text, text, bigint, text, text) from public, anon, authenticated, service_role;

grant execute on function billing.add_entry(uuid, bigint, public.transaction_type, text, text, bigint, text, text) to service_role;


-- Books a refund or dispute, p_fact, that alone keeps a sale from being settled: one row, for all that is between the
-- sale's rows and what its facts say. Returns null, and does nothing, where others wait, too, or the fact is none.
create function billing.book_reversal(
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
    v_reversal billing.reversals;
    v_entries record;
begin
    select * into v_reversal
    from billing.reversals
    where p_fact ->> 'kind' = 'reversal' and reversal_id = p_fact ->> 'id';
    if
        not found
        or exists (
            select from billing.entries_of(p_payment_ids)
            where user_id <> p_sale.user_id
            group by user_id
            having sum(amount) <> 0
        )
    then
        return null;
    end if;

    select
        coalesce(sum(amount) filter (where user_id = p_sale.user_id), 0)::bigint as amount,
        coalesce(sum(money_amount) filter (where split_part(stripe_id, ':', 1) = v_reversal.reversal_id), 0)::bigint as money,
        coalesce(bool_or(stripe_id = v_reversal.reversal_id), false) as are_its_own
    into v_entries
    from billing.entries_of(p_payment_ids);
    if
        v_entries.amount > billing.remaining_credits(
            p_sale.credits, p_sale.money_amount, billing.reversed_money(p_payment_ids, p_sale, v_reversal.reversal_id)
        )
    then
        return null;
    end if;

    return billing.add_entry(
        p_sale.user_id,
        billing.remaining_credits(
            p_sale.credits, p_sale.money_amount, billing.reversed_money(p_payment_ids, p_sale, null)
        ) - v_entries.amount,
        'REFUND',
        case
            when v_entries.are_its_own then billing.next_stripe_id(v_reversal.reversal_id, v_reversal.version::text)
            else v_reversal.reversal_id
        end,
        p_purchase_id, -v_reversal.money_amount - v_entries.money, v_reversal.currency, p_event_id
    );
end
$$;

comment on function billing.book_reversal(text[], billing.merged_sale, text, jsonb, text) is
    'Books a refund or dispute that alone makes a difference.';

revoke all on function billing.book_reversal(text[], billing.merged_sale, text, jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.book_reversal(text[], billing.merged_sale, text, jsonb, text) to service_role;


-- Brings a purchase that is in the ledger to what its facts say, its waiting reversals apart: any other user's rows
-- to 0, and then this user's to the target. The new rows bear the id of the fact that caused them, and its version;
-- "merge" where the fact told that two purchases are one.
create function billing.post_correction(
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
        billing.remaining_credits(
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

comment on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text) is
    'Brings the rows of other users of a sale to 0, and those of its user to the sale''s credits less the booked reversals. If the fact is a reversal, book_reversals() does the latter. New rows bear the fact''s id and version, or merge. Returns whether there is a new row.';

revoke all on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text) to service_role;


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
    if not p_sale.paid then
        return false;
    end if;
    -- Of any type: erase_user() deletes the PURCHASE of a sale that turned out to be another user's.
    select min(coalesce(payment_id, stripe_id) collate "C")
    into v_purchase_id
    from billing.entries_of(p_payment_ids)
    where payment_id is not null or stripe_id = any (p_payment_ids);

    if v_purchase_id is null then
        v_purchase_id := p_sale.payment_id;
        v_changed := billing.add_entry(
            p_sale.user_id, p_sale.credits, 'PURCHASE', v_purchase_id,
            v_purchase_id, p_sale.money_amount, p_sale.currency, p_event_id
        );
    elsif billing.is_settled(p_payment_ids, p_sale) then
        return false;
    else
        v_changed := billing.book_reversal(p_payment_ids, p_sale, v_purchase_id, p_fact, p_event_id);
        if v_changed is not null then
            return v_changed;
        end if;
        v_changed := billing.post_correction(p_payment_ids, p_sale, v_purchase_id, p_fact, p_event_id);
        select coalesce(sum(money), 0)
        into v_reversed
        from billing.reversals_of(p_payment_ids, p_sale, true);
    end if;

    -- Each reversal that has no row yet, this one or one that was here before its sale, gets a row of its own.
    for v_reversal in
        select *
        from billing.reversals_of(p_payment_ids, p_sale, false)
    loop
        v_changed := billing.add_entry(
            p_sale.user_id,
            billing.remaining_credits(p_sale.credits, p_sale.money_amount, v_reversed + v_reversal.money)
            - billing.remaining_credits(p_sale.credits, p_sale.money_amount, v_reversed),
            'REFUND', v_reversal.reversal_id,
            v_purchase_id, -v_reversal.money_amount, v_reversal.currency, v_reversal.event_id
        ) or v_changed;
        v_reversed := v_reversed + v_reversal.money;
    end loop;
    return v_changed;
end
$$;

comment on function billing.settle(text[], billing.merged_sale, jsonb, text) is
    'Brings the ledger of one sale to what its facts say, after p_fact was merged. p_payment_ids are all ids of the sale. Returns whether there is a new row; it bears the id of the fact that caused it.';

revoke all on function billing.settle(text[], billing.merged_sale, jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.settle(text[], billing.merged_sale, jsonb, text) to service_role;

-- migrate:down
