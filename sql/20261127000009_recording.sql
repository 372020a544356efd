-- migrate:up

-- Recording: record() is called once for each delivery, or for a batch of them. It locks the sales with their subscriptions
-- and customers, and merges the claims. Then it locks the users, merges each other fact and settles the fact's sale.

create function billing.settle_sale(
    p_payment_ids text[],
    p_sale billing.merged_sale,
    p_fact jsonb,
    p_event_id text,
    out reason text,
    out is_new boolean,
    out is_lost boolean
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_purchase_id text;
begin
    is_new := false;
    is_lost := false;
    reason := billing.unsettled_reason(p_sale);
    if p_sale.erased then
        reason := null;
        return;
    elsif reason is null then
        is_new := billing.settle(p_payment_ids, p_sale, p_fact, p_event_id);
    elsif p_sale.paid then
        v_purchase_id := (billing.purchase_of(p_payment_ids, null)).purchase_id;
        is_new := billing.clear_entries(p_payment_ids, null, v_purchase_id, p_fact, p_event_id);
        if billing.lacks_nothing(p_sale) then
            reason := null;
        end if;
        is_lost := reason is not null
            and p_sale.credits is not null
            and (v_purchase_id is not null or p_sale.forgotten);
        return;
    end if;
    if reason is not null or not p_sale.paid then
        return; -- A parked event may be the only one to report the payment.
    end if;
    update billing.parked_events
    set
        resolution = 'settled',
        resolved_at = now(),
        payload = null
    where
        payment_id = any (p_payment_ids)
        and parked_events.reason not in ('wrong_mode', 'missing_api_key') -- their facts were not read
        and resolved_at is null;
end
$$;

comment on function billing.settle_sale(text[], billing.merged_sale, jsonb, text) is
    'Settles the sale of linked payments. p_sale is what sale_of() returns after p_fact was merged. Returns why it cannot be settled, else null, whether the ledger has a new row, and whether the sale was settled before and lost its user. Such a sale takes back what it granted. Resolves the parked events of a paid sale.';

revoke all on function billing.settle_sale(text[], billing.merged_sale, jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.settle_sale(text[], billing.merged_sale, jsonb, text) to service_role;


create function billing.settle_again(p_payment_ids text[], p_event_id text) returns boolean
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_id text;
    v_linked text[];
    v_done text[] := '{}';
    v_settled record;
    v_is_settled boolean := true;
begin
    for v_payment_id in
        select distinct id collate "C" as id
        from unnest(p_payment_ids) as id
        order by id
    loop
        continue when v_payment_id = any (v_done);
        v_linked := billing.linked_payments(array[v_payment_id]);
        v_done := v_done || v_linked;
        v_settled := billing.settle_sale(
            v_linked,
            billing.sale_of(v_linked),
            jsonb_build_object('kind', 'claim', 'payment_id', v_payment_id),
            coalesce(
                p_event_id,
                (
                    select event_id from billing.parked_events
                    where payment_id = any (v_linked) and resolved_at is null
                    order by parked_at
                    limit 1
                ),
                v_payment_id
            )
        );
        if v_settled.reason is not null then
            perform billing.park_sale(v_linked, v_settled.reason, v_settled.is_lost);
            v_is_settled := false;
        end if;
    end loop;
    return v_is_settled;
end
$$;

comment on function billing.settle_again(text[], text) is
    'Settles sales whose user may have changed, under the locks of lock_payments() and lock_users(). Without p_event_id the rows name the sale''s parked event, else the payment. Returns whether all are settled.';

revoke all on function billing.settle_again(text[], text) from public, anon, authenticated, service_role;

grant execute on function billing.settle_again(text[], text) to service_role;


create function billing.lacks_refunds(p_payment_ids text[], p_fact jsonb) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from billing.sales
        where
            payment_id = any (p_payment_ids)
            -- Without credits and a user it is another product's payment.
            and (credits is not null or (select id from public.users where id = user_id) is not null)
    )
        and (p_fact ->> 'money_amount')::numeric > (
            select coalesce(sum(money_amount), 0)
            from billing.reversals
            where payment_id = any (p_payment_ids) and reversal_id !~ '^d[pu]_' -- a dispute is no refund
        );
end
$$;

comment on function billing.lacks_refunds(text[], jsonb) is
    'Returns whether the known refunds of a sale amount to less than its charge reports as refunded.';

revoke all on function billing.lacks_refunds(text[], jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.lacks_refunds(text[], jsonb) to service_role;


-- The total of a charge often arrives before the refunds that it adds up. Its event is read as text: the operators of json
-- reject a body that contains \u0000 or half a surrogate pair.
create function billing.resolve_refunded_totals(p_payment_ids text[]) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.resolve(event_id)
    from billing.parked_events
    where
        payment_id = any (p_payment_ids)
        and event_type = 'charge.refunded'
        and reason = 'missing_api_key'
        and resolved_at is null
        and not billing.lacks_refunds(
            p_payment_ids,
            jsonb_build_object(
                'money_amount', substring(payload::text from '"amount_refunded": *([0-9]{1,19})')
            )
        );
end
$$;

comment on function billing.resolve_refunded_totals(text[]) is
    'Resolves the parked events of a sale that report a refunded total, once the known refunds amount to it.';

revoke all on function billing.resolve_refunded_totals(text[]) from public, anon, authenticated, service_role;

grant execute on function billing.resolve_refunded_totals(text[]) to service_role;


create function billing.record_fact(p_fact jsonb, p_event_id text) returns text
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids constant text[] := billing.linked_payments(array[p_fact ->> 'payment_id', p_fact ->> 'invoice_id']);
    v_before constant billing.merged_sale := billing.sale_of(v_payment_ids);
    v_sale billing.merged_sale := v_before;
    v_is_sale constant boolean := p_fact ->> 'kind' = 'sale';
    v_is_new boolean;
    v_settled record;
begin
    if v_before.erased then
        if p_fact ->> 'kind' = 'link' then
            perform billing.merge_link(p_fact); -- The other id belongs to the erased sale, too.
        end if;
        return 'duplicate';
    end if;
    case p_fact ->> 'kind'
        when 'sale' then
            -- Without credits it is stored for the facts that may follow, and must not bring an erased user's id back.
            if billing.merge_sale(
                case when billing.is_erased_user((p_fact ->> 'user_id')::uuid) then p_fact - 'user_id' else p_fact end
            ) then
                v_sale := billing.sale_of(v_payment_ids);
            end if;
            v_is_new := v_sale is distinct from v_before;
        when 'reversal' then
            v_is_new := billing.merge_reversal(p_fact, p_event_id);
            perform billing.resolve_refunded_totals(v_payment_ids);
        when 'link' then
            v_is_new := billing.merge_link(p_fact);
        when 'refunded_total' then
            return case when billing.lacks_refunds(v_payment_ids, p_fact) then 'missing_api_key' else 'refunds_known' end;
    end case;

    v_settled := billing.settle_sale(v_payment_ids, v_sale, p_fact, p_event_id);
    if v_is_sale and v_settled.reason is not null then
        if p_fact ->> 'unusable' is not null then
            return p_fact ->> 'unusable';
        elsif
            v_settled.reason = 'unknown_user'
            or p_fact ->> 'credits' is not null
            or exists (select from public.users where id = (p_fact ->> 'user_id')::uuid)
        then
            return v_settled.reason;
        end if;
        -- A payment that names neither credits nor a user of ours is another product's, until another fact reports credits.
        if p_fact ->> 'user_id' is not null then
            return 'no_credits';
        end if;
    end if;
    if v_settled.is_lost then
        perform billing.park_sale(v_payment_ids, v_settled.reason, true);
    end if;
    return case when v_is_new or v_settled.is_new then 'recorded' else 'duplicate' end;
end
$$;

comment on function billing.record_fact(jsonb, text) is
    'Merges one fact and settles its sale. Returns recorded, duplicate (nothing new, or an erased sale), refunds_known or no_credits (the fact has no consequence), else why the sale cannot be settled.';

revoke all on function billing.record_fact(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.record_fact(jsonb, text) to service_role;


create function billing.rejection_reason(p_facts jsonb) returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment_ids text[];
begin
    if not p_facts @? '$[*] ? (@.kind == "sale")' then
        return null;
    end if;
    if not exists (
        select from jsonb_array_elements(p_facts) as fact
        where
            fact ->> 'kind' = 'sale'
            and num_nulls(fact ->> 'user_id', fact ->> 'credits') = 0
            and (select 1 from public.users where id = (fact ->> 'user_id')::uuid) is null
    ) then
        return null;
    end if;
    v_payment_ids := billing.linked_payments(billing.ids_in(p_facts));
    if
        (billing.sale_of(v_payment_ids)).erased -- An erased sale needs no user.
        or exists (
            select from billing.assignments
            where payment_id = any (v_payment_ids) and user_id is not null and withdrawn_by is null
        )
    then
        return null;
    end if;
    return 'unknown_user';
end
$$;

comment on function billing.rejection_reason(jsonb) is
    'Returns why a delivery with these facts is rejected as a whole, null if it is not: it sells credits to a user that does not exist, and no operator has assigned it to another one.';

revoke all on function billing.rejection_reason(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.rejection_reason(jsonb) to service_role;


create function billing.record_delivery(p_facts jsonb, p_event_id text) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_outcome text;
    v_outcomes text[] := '{}';
    v_is_recorded boolean := false;
    v_ignored text;
    v_unsettled text;
begin
    -- By position: a delivery has few facts, and a query would take longer than most of them.
    for v_position in 0 .. jsonb_array_length(p_facts) - 1 loop
        if p_facts -> v_position ->> 'kind' = 'claim' then
            v_outcomes := v_outcomes || billing.record_claim(p_facts -> v_position, p_event_id);
        end if;
    end loop;
    v_unsettled := billing.rejection_reason(p_facts);
    if v_unsettled is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_unsettled);
    end if;
    for v_position in 0 .. jsonb_array_length(p_facts) - 1 loop
        if p_facts -> v_position ->> 'kind' <> 'claim' then
            v_outcomes := v_outcomes || billing.record_fact(p_facts -> v_position, p_event_id);
        end if;
    end loop;

    foreach v_outcome in array v_outcomes loop
        case
            when v_outcome = 'recorded' then
                v_is_recorded := true;
            when v_outcome = 'duplicate' then
                null;
            when v_outcome in ('refunds_known', 'no_credits', 'no_payment') then
                v_ignored := v_outcome;
            else
                v_unsettled := coalesce(v_unsettled, v_outcome);
        end case;
    end loop;
    if v_unsettled is not null then
        return jsonb_build_object('outcome', 'unsettled', 'reason', v_unsettled);
    end if;
    perform billing.resolve(p_event_id);
    return case
        when v_is_recorded then '{"outcome": "recorded"}'
        when v_ignored is null then '{"outcome": "duplicate"}'
        else jsonb_build_object('outcome', 'ignored', 'reason', v_ignored)
    end;
end
$$;

comment on function billing.record_delivery(jsonb, text) is
    'Records the facts of one delivery, or only its claims if it sells credits to an unknown user. Returns its result as record() does.';

revoke all on function billing.record_delivery(jsonb, text) from public, anon, authenticated, service_role;

grant execute on function billing.record_delivery(jsonb, text) to service_role;


create type billing.new_sale as (
    position integer,
    event_id text,
    payment_id text,
    version smallint,
    user_id uuid,
    credits bigint,
    money_amount bigint,
    currency text,
    claim jsonb
);

comment on type billing.new_sale is
    'A complete paid sale of which nothing is known yet, with the position of its delivery in the batch, from 1, and the claim of its delivery, if it has one.';

revoke all on type billing.new_sale from public, anon, authenticated, service_role;

grant usage on type billing.new_sale to service_role;


-- A claim is merged before its user is locked. A deletion that commits in between has not seen the claim.
create function billing.has_lost_claimant(p_facts jsonb) returns boolean
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from jsonb_array_elements(p_facts) as fact
        where
            fact ->> 'outcome' = 'recorded'
            and not exists (select from public.users where id = (fact ->> 'user_id')::uuid)
            and exists (select from billing.claims where user_id = (fact ->> 'user_id')::uuid)
    );
end
$$;

comment on function billing.has_lost_claimant(jsonb) is
    'Returns whether the user of a claim was deleted after merge_claim() had found that the user exists.';

revoke all on function billing.has_lost_claimant(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.has_lost_claimant(jsonb) to service_role;


-- p_deliveries is [{"event_id": text, "facts": [fact, …]}, …]. A fact is one of
--   {"kind": "sale", "payment_id", "version", "user_id", "credits", "money_amount", "currency", "paid",
--    "subscription_id", "customer_id", "priced", "unusable"}
--   {"kind": "claim", "subscription_id", "customer_id", "user_id", "level", "created"}
--   {"kind": "reversal", "id", "version", "payment_id", "money_amount", "currency"}
--   {"kind": "link", "id", "invoice_id", "payment_id"}
--   {"kind": "refunded_total", "payment_id", "money_amount"}
-- with credits, minor units and seconds since 1970 as integers, and null for what its source does not name.
--
-- New sales of a batch take the short path of new_sales() and record_new_sales().
--
-- A delivery needs a few rows of tables that may be long, so everything below reads by index, row by row. The planner
-- cannot know that: a session keeps the plans that it made while the tables were short. Where a row is looked up for each
-- of several others, "(select 1 …) is not null" stands for "exists": the planner may hash a whole table for the latter.
-- Plans are generic: planning each call takes longer than the call.
create function billing.record(p_deliveries jsonb) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_facts jsonb := jsonb_path_query_array(p_deliveries, '$[*].facts[*]');
    v_ids constant text[] := billing.ids_in(v_facts);
    v_sales billing.new_sale[];
    v_new integer[] := '{}';
    v_results jsonb := '[]';
begin
    perform billing.lock_sign_ups(v_facts);
    perform billing.lock_payments(v_ids);
    v_sales := billing.new_sales(p_deliveries, v_ids);
    if cardinality(v_sales) < jsonb_array_length(p_deliveries) then
        p_deliveries := billing.merge_claims(p_deliveries, array(select position from unnest(v_sales)));
        v_facts := jsonb_path_query_array(p_deliveries, '$[*].facts[*]');
        perform billing.lock_users(v_facts);
        if billing.has_lost_claimant(v_facts) then
            raise exception 'the user of a claim was deleted meanwhile' using errcode = 'serialization_failure';
        end if;
    end if;
    if cardinality(v_sales) > 0 then
        v_new := billing.record_new_sales(v_sales); -- it locks no more users than lock_users() has locked
        if cardinality(v_new) = jsonb_array_length(p_deliveries) then
            return to_jsonb(array_fill('{"outcome": "recorded"}'::jsonb, array[cardinality(v_new)]));
        end if;
    end if;
    for v_position in 1 .. jsonb_array_length(p_deliveries) loop
        v_results := v_results || case
            when v_position = any (v_new) then '{"outcome": "recorded"}'
            else billing.record_delivery(
                p_deliveries -> (v_position - 1) -> 'facts', p_deliveries -> (v_position - 1) ->> 'event_id'
            )
        end;
    end loop;
    return v_results;
end
$$;

comment on function billing.record(jsonb) is
    'Records deliveries and returns one result for each, in their order: {"outcome": "recorded"}, "duplicate", "ignored", or {"outcome": "unsettled", "reason": …}, which the caller parks.';

revoke all on function billing.record(jsonb) from public, anon, authenticated, service_role;

grant execute on function billing.record(jsonb) to service_role;

-- migrate:down
