-- migrate:up

-- Settlement: the ledger rows of a sale are topped up until they match its facts. An event never adds an amount by itself.
--
-- The PURCHASE row grants the credits of a paid sale. Each reversal (a refund or dispute) is booked by book_reversals()
-- under its own id. post_correction() writes a row if the sale itself changes: other credits, another user, or two sales
-- that turn out to be one.

create function billing.remaining_credits(p_credits bigint, p_money_amount bigint, p_reversed numeric) returns bigint
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when p_money_amount = 0 then p_credits
        else p_credits - div(p_credits * least(p_reversed, p_money_amount), p_money_amount)::bigint
    end;
end
$$;

comment on function billing.remaining_credits(bigint, bigint, numeric) is
    'Returns the credits that a sale keeps once p_reversed of its money is gone, rounded in the customer''s favour. All of the money takes all the credits; if nothing was paid, nothing is taken.';

revoke all on function billing.remaining_credits(bigint, bigint, numeric) from public, anon, authenticated, service_role;

grant execute on function billing.remaining_credits(bigint, bigint, numeric) to service_role;


-- By index alone: the planner would read the whole ledger for an "or" with a subquery that is not an array.
create function billing.entries_of(p_payment_ids text[]) returns setof public.transactions
    language plpgsql
    stable
    rows 3
    set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select *
    from public.transactions
    where
        payment_id = any (p_payment_ids)
        or stripe_id = any (p_payment_ids || array(
            select reversal_id
            from billing.reversals
            where payment_id = any (p_payment_ids)
        ));
end
$$;

comment on function billing.entries_of(text[]) is
    'Returns the ledger rows of linked payments, also rows that another application inserted without payment_id.';

revoke all on function billing.entries_of(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.entries_of(text[]) to service_role;


-- p_reversal_id is the reversal that the settled fact reports, if it reports one. It comes last and counts as not booked,
-- so that it is booked with the whole remaining difference, under one id. A reversal too small to take a credit has no row
-- and stays not booked; a later one then takes the credit that they take together.
create function billing.reversals_of(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_reversal_id text
) returns table (
    reversal_id text,
    version integer,
    money_amount bigint,
    currency text,
    event_id text,
    is_booked boolean,
    remaining_credits bigint
)
    language plpgsql
    stable
    rows 1
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        reversal_id,
        version,
        money_amount,
        currency,
        event_id,
        is_booked,
        billing.remaining_credits(p_sale.credits, p_sale.money_amount, sum(taken) over booking)
    from (
        select
            *,
            -- In another currency it takes all of the sale's money.
            case when currency = p_sale.currency or money_amount = 0 then money_amount else p_sale.money_amount end as taken,
            reversal_id is distinct from p_reversal_id
            and (select 1 from public.transactions where stripe_id = reversal_id) is not null as is_booked
        from billing.reversals
        where payment_id = any (p_payment_ids) and (money_amount > 0 or reversal_id = p_reversal_id)
    ) as known
    window booking as (order by is_booked desc, reversal_id = p_reversal_id, reversal_id collate "C")
    order by
        is_booked desc,
        reversal_id = p_reversal_id,
        reversal_id collate "C";
end
$$;

comment on function billing.reversals_of(text[], billing.merged_sale, text) is
    'Returns the reversals of a sale in the order of booking, those with a ledger row first. remaining_credits is what the sale keeps after a reversal and all before it.';

revoke all on function billing.reversals_of(text[], billing.merged_sale, text) from public, anon, authenticated, service_role;

grant execute on function billing.reversals_of(text[], billing.merged_sale, text) to service_role;


create function billing.is_settled(p_payment_ids text[], p_sale billing.merged_sale) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_target constant bigint := (
        select coalesce(min(remaining_credits), p_sale.credits)
        from billing.reversals_of(p_payment_ids, p_sale, null)
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

revoke all on function billing.add_entry(uuid, bigint, public.transaction_type, text, text, bigint, text, text)
from public, anon, authenticated, service_role;

grant execute on function billing.add_entry(uuid, bigint, public.transaction_type, text, text, bigint, text, text)
to service_role;


create function billing.book_reversals(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_purchase_id text,
    p_reversal_id text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reversal record;
    v_entries record;
    v_amount bigint;
    v_changed boolean := false;
begin
    for v_reversal in
        select *
        from billing.reversals_of(p_payment_ids, p_sale, p_reversal_id)
        where not is_booked
    loop
        select
            coalesce(sum(amount) filter (where user_id = p_sale.user_id), 0)::bigint as credits,
            coalesce(
                sum(money_amount) filter (where split_part(stripe_id, ':', 1) = v_reversal.reversal_id),
                0
            )::bigint as money_amount,
            coalesce(bool_or(stripe_id = v_reversal.reversal_id), false) as has_its_row
        into v_entries
        from billing.entries_of(p_payment_ids);

        v_amount := v_reversal.remaining_credits - v_entries.credits;
        if v_reversal.reversal_id is distinct from p_reversal_id then
            v_amount := least(v_amount, 0); -- A reversal that waited only takes credits.
        end if;
        v_changed := billing.add_entry(
            p_sale.user_id,
            v_amount,
            'REFUND',
            case
                when v_entries.has_its_row then billing.next_stripe_id(v_reversal.reversal_id, v_reversal.version::text)
                else v_reversal.reversal_id
            end,
            p_purchase_id,
            -v_reversal.money_amount - v_entries.money_amount, -- what it has moved beyond its earlier rows
            v_reversal.currency,
            v_reversal.event_id
        ) or v_changed;
    end loop;
    return v_changed;
end
$$;

comment on function billing.book_reversals(text[], billing.merged_sale, text, text) is
    'Books the reversals of a sale that have no ledger row yet, and p_reversal_id, which the settled fact reports: one row each, for the credits that it takes or gives back. Returns whether there is a new row.';

revoke all on function billing.book_reversals(text[], billing.merged_sale, text, text) from public, anon, authenticated, service_role;

grant execute on function billing.book_reversals(text[], billing.merged_sale, text, text) to service_role;


create function billing.correction_id(p_purchase_id text, p_fact jsonb) returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_cause_id constant text := coalesce(p_fact ->> 'id', p_fact ->> 'payment_id');
begin
    return billing.next_stripe_id(v_cause_id, case
        when p_fact ->> 'kind' = 'claim' then 'claim'
        when p_fact ->> 'kind' = 'reversal' or (p_fact ->> 'kind' = 'sale' and v_cause_id = p_purchase_id)
            then p_fact ->> 'version'
        else 'merge' -- The fact made two purchases one.
    end);
end
$$;

comment on function billing.correction_id(text, jsonb) is
    'Returns the stripe_id of the next correction that a fact causes: its id and version, claim, or merge.';

revoke all on function billing.correction_id(text, jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.correction_id(text, jsonb) to service_role;


create function billing.clear_entries(
    p_payment_ids text[],
    p_owner uuid,
    p_purchase_id text,
    p_fact jsonb,
    p_event_id text
) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_is_reversal constant boolean := p_fact ->> 'kind' = 'reversal';
    v_entry record;
    v_changed boolean := false;
begin
    for v_entry in
        select *
        from (
            select
                user_id,
                currency,
                -sum(amount)::bigint as amount,
                -sum(money_amount)::bigint as money_amount,
                sum(sum(amount)) over (partition by user_id) as credits,
                bool_or(bool_or(event_id is not null)) over (partition by user_id) as is_from_event
            from billing.entries_of(p_payment_ids)
            where user_id is distinct from p_owner
            group by
                user_id,
                currency
        ) as others
        where
            amount <> 0
            and (credits <> 0 or not v_is_reversal) -- A reversal moves nothing that already adds up to 0.
            and (p_owner is not null or is_from_event) -- Rows by hand stay until the sale has an owner.
        order by
            user_id,
            currency
    loop
        v_changed := billing.add_entry(
            v_entry.user_id, v_entry.amount, 'REFUND', billing.correction_id(p_purchase_id, p_fact),
            p_purchase_id, v_entry.money_amount, v_entry.currency, p_event_id
        );
    end loop;
    return v_changed;
end
$$;

comment on function billing.clear_entries(text[], uuid, text, jsonb, text) is
    'Brings the rows of all users of a sale but p_owner (null: of all) to 0. Returns whether there is a new row.';

revoke all on function billing.clear_entries(text[], uuid, text, jsonb, text)
from public, anon, authenticated, service_role;

grant execute on function billing.clear_entries(text[], uuid, text, jsonb, text) to service_role;


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
    v_entry record;
    v_changed constant boolean := billing.clear_entries(
        p_payment_ids, p_sale.user_id, p_purchase_id, p_fact, p_event_id
    );
begin
    if p_fact ->> 'kind' = 'reversal' then
        return v_changed;
    end if;

    -- money_amount: the sale's money beyond what its rows say, apart from rows that a reversal caused.
    select
        (
            select coalesce(min(remaining_credits) filter (where is_booked), p_sale.credits)
            from billing.reversals_of(p_payment_ids, p_sale, null)
        ) - coalesce(sum(amount) filter (where user_id = p_sale.user_id), 0)::bigint as amount,
        p_sale.money_amount - coalesce(
            sum(money_amount) filter (
                where
                    currency = p_sale.currency
                    and (select 1 from billing.reversals where reversal_id = split_part(stripe_id, ':', 1)) is null
            ),
            0
        )::bigint as money_amount
    into v_entry
    from billing.entries_of(p_payment_ids);

    return billing.add_entry(
        p_sale.user_id, v_entry.amount, 'REFUND', billing.correction_id(p_purchase_id, p_fact),
        p_purchase_id, v_entry.money_amount, p_sale.currency, p_event_id
    ) or v_changed;
end
$$;

comment on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text) is
    'Brings the rows of other users of a sale to 0, and those of its user to the sale''s credits less the booked reversals. If the fact is a reversal, book_reversals() does the latter. New rows have the id of correction_id(). Returns whether there is a new row.';

revoke all on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text)
from public, anon, authenticated, service_role;

grant execute on function billing.post_correction(text[], billing.merged_sale, text, jsonb, text) to service_role;


create function billing.purchase_of(
    p_payment_ids text[],
    p_owner uuid,
    out purchase_id text,
    out is_shared boolean
)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- From rows of any type: erase_user() deletes the PURCHASE of a sale that turned out to be another user's.
    select
        min(coalesce(payment_id, stripe_id) collate "C") filter (
            where payment_id is not null or stripe_id = any (p_payment_ids)
        ),
        coalesce(bool_or(user_id is distinct from p_owner), false)
    into purchase_id, is_shared
    from billing.entries_of(p_payment_ids);
end
$$;

comment on function billing.purchase_of(text[], uuid) is
    'Returns the payment_id of the ledger rows of a sale, null if it has none, and whether users other than p_owner have rows.';

revoke all on function billing.purchase_of(text[], uuid) from public, anon, authenticated, service_role;

grant execute on function billing.purchase_of(text[], uuid) to service_role;


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
    v_reversal_id constant text := case when p_fact ->> 'kind' = 'reversal' then p_fact ->> 'id' end;
    v_purchase record;
    v_changed boolean := false;
begin
    if not p_sale.paid then
        return false;
    end if;
    v_purchase := billing.purchase_of(p_payment_ids, p_sale.user_id);
    if v_purchase.purchase_id is null then
        v_purchase.purchase_id := p_sale.payment_id;
        v_changed := billing.add_entry(
            p_sale.user_id, p_sale.credits, 'PURCHASE', v_purchase.purchase_id,
            v_purchase.purchase_id, p_sale.money_amount, p_sale.currency, p_event_id
        );
    elsif v_reversal_id is null and billing.is_settled(p_payment_ids, p_sale) then
        return false;
    elsif v_reversal_id is null or v_purchase.is_shared then -- A reversal corrects nothing but the rows of other users.
        v_changed := billing.post_correction(p_payment_ids, p_sale, v_purchase.purchase_id, p_fact, p_event_id);
    end if;
    return billing.book_reversals(p_payment_ids, p_sale, v_purchase.purchase_id, v_reversal_id) or v_changed;
end
$$;

comment on function billing.settle(text[], billing.merged_sale, jsonb, text) is
    'Makes the ledger rows of one sale match its facts, after p_fact was merged. p_payment_ids are all ids of the sale. Returns whether there is a new row; it bears the id of the fact that caused it.';

revoke all on function billing.settle(text[], billing.merged_sale, jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.settle(text[], billing.merged_sale, jsonb, text) to service_role;

-- migrate:down
