-- migrate:up

-- A sale that is what its facts say is left as it is, and a refund or dispute that alone makes a difference has one row. A
-- refund too small to take a credit has none, so it does not count as booked: correct() gave back the credit that it and a
-- later one take together, and took it again, at each redelivery and before each further refund.

set local lock_timeout = '3s';


-- The ledger rows of linked payments, those included that somebody else inserted without payment_id. By index alone: the
-- planner reads the whole ledger where a condition of "or" holds a subquery that is not an array.
create or replace function billing.entries_of(p_payment_ids text[]) returns setof public.transactions
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


-- Whether the ledger rows of a sale come to what its facts say: to the credits that its user keeps, and to 0 for others.
create function billing.is_settled(p_payment_ids text[], p_sale billing.merged_sale) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_target constant bigint := billing.kept_credits(
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
        v_entries.amount > billing.kept_credits(
            p_sale.credits, p_sale.money_amount, billing.reversed_money(p_payment_ids, p_sale, v_reversal.reversal_id)
        )
    then
        return null;
    end if;

    return billing.add_entry(
        p_sale.user_id,
        billing.kept_credits(
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

revoke all on function
    billing.reversed_money(text[], billing.merged_sale, text),
    billing.is_settled(text[], billing.merged_sale),
    billing.book_reversal(text[], billing.merged_sale, text, jsonb, text)
from public, anon, authenticated, service_role;

grant execute on function
    billing.reversed_money(text[], billing.merged_sale, text),
    billing.is_settled(text[], billing.merged_sale),
    billing.book_reversal(text[], billing.merged_sale, text, jsonb, text)
to service_role;


-- Brings the ledger of one sale (p_payment_ids: all ids of it) to what its facts say, and returns whether that took a
-- new row. p_fact has just been merged; a row that it causes bears its id.
create or replace function billing.settle(
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
        v_changed := billing.correct(p_payment_ids, p_sale, v_purchase_id, p_fact, p_event_id);
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


create or replace function billing.schema_version() returns text
    language sql
    immutable
    set search_path = ''
    return '20261122000011';

-- migrate:down
